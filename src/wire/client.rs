//! A minimal client for Argon's own commands to a mongod.

use std::path::Path;

use bson::{Document, RawDocument, RawDocumentBuf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::error::WireError;
use super::header::OpCode;
use super::message::read_message;
use super::msg::{Msg, MsgFlags, encode_msg};
use crate::base::limits::MESSAGE_BYTES_MAX;

/// One connection, one command at a time. No method is cancel safe: a client whose call was
/// dropped half way must be dropped too (a later call on it fails, it never takes the wrong reply).
#[derive(Debug)]
pub struct Client<S = UnixStream> {
    stream: S,
    last_request_id: i32,
}

impl Client {
    /// Connects to a Unix socket. Says nothing yet: `hello` is the caller's to send.
    pub async fn connect(socket: &Path) -> Result<Self, WireError> {
        let doing = || format!("connect to {}", socket.display());
        UnixStream::connect(socket).await.map(Self::over).map_err(WireError::io(doing()))
    }
}

impl<S> Client<S> {
    /// A client over a connection that exists.
    pub fn over(stream: S) -> Self {
        Self { stream, last_request_id: 0 }
    }

    /// The connection itself, for what this client does not do.
    #[cfg(test)]
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The connection, with nothing of it read ahead.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Runs a command on a database and returns its good reply; `$db` is added. A reply that says
    /// `ok: 0` is [`WireError::Command`].
    pub async fn command(&mut self, db: &str, command: Document) -> Result<Document, WireError> {
        let raw = RawDocumentBuf::try_from(&command).map_err(WireError::bson("command"))?;
        let reply = self.checked(db, &raw).await?;
        Document::try_from(&*reply).map_err(WireError::bson("reply"))
    }

    /// Runs a command and returns the reply as it is, whatever it says; `$db` is added.
    pub async fn command_raw(
        &mut self,
        db: &str,
        command: &RawDocument,
    ) -> Result<RawDocumentBuf, WireError> {
        let mut addressed = command.to_owned();
        addressed.append(bson::raw::cstr!("$db"), db);
        let message = encode_msg(self.next_request_id(), 0, MsgFlags::NONE, &addressed);
        self.exchange(&message).await
    }

    /// Runs a command, byte for byte as it is, and returns the reply if it says `ok: 1`; `$db` is
    /// added.
    pub async fn checked(
        &mut self,
        db: &str,
        command: &RawDocument,
    ) -> Result<RawDocumentBuf, WireError> {
        let reply = self.command_raw(db, command).await?;
        check_ok(command, &reply)?;
        Ok(reply)
    }

    /// The id that the next message must carry.
    pub(super) fn next_request_id(&mut self) -> i32 {
        self.last_request_id = self.last_request_id.wrapping_add(1);
        self.last_request_id
    }

    /// Sends one message, which carries the last id given out, and reads its reply.
    pub(super) async fn exchange(&mut self, message: &[u8]) -> Result<RawDocumentBuf, WireError> {
        let sending = || WireError::io("send a command");
        self.stream.write_all(message).await.map_err(sending())?;
        self.stream.flush().await.map_err(sending())?;
        let reply = read_message(&mut self.stream, MESSAGE_BYTES_MAX).await?;
        let reply = reply.ok_or(WireError::Cut { expected: 16, got: 0 })?;
        if reply.header.opcode != OpCode::Msg || reply.header.response_to != self.last_request_id {
            return Err(WireError::WrongReply {
                request_id: self.last_request_id,
                response_to: reply.header.response_to,
                opcode: reply.header.opcode,
            });
        }
        Ok(Msg::parse(&reply.body)?.body.to_owned())
    }
}

/// The error in a reply that says `ok: 0`; servers send `ok` as a double, an integer or a boolean.
pub(super) fn check_ok(command: &RawDocument, reply: &RawDocument) -> Result<(), WireError> {
    let field = |key: &str| reply.get(key).ok().flatten();
    let ok = field("ok").is_some_and(|ok| {
        ok.as_f64() == Some(1.0)
            || ok.as_i32() == Some(1)
            || ok.as_i64() == Some(1)
            || ok.as_bool() == Some(true)
    });
    if ok {
        return Ok(());
    }
    let name = command.iter_elements().next().and_then(Result::ok);
    let text = |key| field(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    Err(WireError::Command {
        name: name.map(|element| element.key().as_str().to_owned()).unwrap_or_default(),
        code: field("code").and_then(|code| code.as_i32()).unwrap_or(0),
        code_name: text("codeName"),
        message: text("errmsg"),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use bson::{doc, rawdoc};
    use bytes::Bytes;
    use tokio::io::DuplexStream;

    use super::super::message::Message;
    use super::*;

    /// A client whose peer answers each message with what `answer` says, and gives back all
    /// messages that it got.
    pub(in crate::wire) fn scripted(
        mut answer: impl FnMut(&Message) -> Bytes + Send + 'static,
    ) -> (Client<DuplexStream>, tokio::task::JoinHandle<Vec<Message>>) {
        let (near, mut far) = tokio::io::duplex(1024);
        let peer = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(message) = read_message(&mut far, MESSAGE_BYTES_MAX).await.unwrap() {
                far.write_all(&answer(&message)).await.unwrap();
                seen.push(message);
            }
            seen
        });
        (Client::over(near), peer)
    }

    pub(in crate::wire) fn reply(to: &Message, document: &RawDocument) -> Bytes {
        encode_msg(99, to.header.request_id, MsgFlags::NONE, document)
    }

    #[tokio::test]
    async fn a_command_carries_its_database_and_gets_its_reply() {
        let (mut client, peer) = scripted(|request| reply(request, &rawdoc! { "ok": 1.0, "n": 3 }));
        let found = client.command("shop", doc! { "count": "orders" }).await.unwrap();
        assert_eq!(found, doc! { "ok": 1.0, "n": 3 });
        drop(client);
        let seen = peer.await.unwrap();
        let sent = Msg::parse(&seen[0].body).unwrap().body;
        assert_eq!(sent, &*rawdoc! { "count": "orders", "$db": "shop" });
    }

    #[tokio::test]
    async fn ok_0_is_an_error_that_names_the_command() {
        let refusal = rawdoc! { "ok": 0.0, "code": 26, "codeName": "NsNotFound", "errmsg": "no" };
        let answer = refusal.clone();
        let (mut client, _peer) = scripted(move |request| reply(request, &answer));
        let error = client.command("d", doc! { "drop": "c" }).await.unwrap_err();
        assert_eq!(error.code(), Some(26));
        assert_eq!(error.to_string(), "command drop failed with code 26 (NsNotFound): no");
        let raw = client.command_raw("d", &rawdoc! { "drop": "c" }).await.unwrap();
        assert_eq!(raw, refusal);
    }

    #[tokio::test]
    async fn every_form_of_ok_is_known() {
        for (reply, good) in [
            (rawdoc! { "ok": 1.0 }, true),
            (rawdoc! { "ok": 1 }, true),
            (rawdoc! { "ok": 1_i64 }, true),
            (rawdoc! { "ok": true }, true),
            (rawdoc! { "ok": 0 }, false),
            (rawdoc! { "ok": "1" }, false),
            (rawdoc! {}, false),
        ] {
            assert_eq!(check_ok(&rawdoc! { "ping": 1 }, &reply).is_ok(), good, "{reply:?}");
        }
    }

    #[tokio::test]
    async fn a_reply_to_another_request_is_refused() {
        let (mut client, _peer) =
            scripted(|_| encode_msg(1, 12_345, MsgFlags::NONE, &rawdoc! { "ok": 1 }));
        let error = client.command("d", doc! { "ping": 1 }).await.unwrap_err();
        assert!(matches!(error, WireError::WrongReply { response_to: 12_345, .. }), "{error}");
        assert!(error.retryable());
    }

    #[tokio::test]
    async fn a_connection_closed_instead_of_a_reply_is_cut() {
        let (near, far) = tokio::io::duplex(1024);
        let closing = tokio::spawn(async move {
            let mut far = far;
            read_message(&mut far, 1000).await.unwrap();
        });
        let error = Client::over(near).command("d", doc! { "ping": 1 }).await.unwrap_err();
        assert!(matches!(error, WireError::Cut { .. }), "{error}");
        closing.await.unwrap();
    }
}
