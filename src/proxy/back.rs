//! A session's back half: its connection to the branch's mongod, in one life of the branch.

use std::io;
use std::path::Path;

use bson::{RawDocument, rawdoc};
use tokio::time::timeout;
use tracing::debug;

use super::connection::Connection;
use super::local_stream::LocalStream;
use crate::base::ids::Epoch;
use crate::base::limits::ATTACH_WAIT;
use crate::wire::{Client, WireError};

/// A connection that said hello, with the client's metadata, and serves one request at a time.
#[derive(Debug)]
pub(super) struct Back {
    /// The connection.
    pub(super) connection: Connection<LocalStream>,
    epoch: Epoch,
}

impl Back {
    /// Connects to the branch's mongod and says hello in the client's name, so that its logs and
    /// `currentOp` show whose connection it is.
    pub(super) async fn attach(
        socket: &Path,
        epoch: Epoch,
        client: Option<&RawDocument>,
    ) -> Result<Self, WireError> {
        let stream = timeout(ATTACH_WAIT, greet(socket, client)).await.unwrap_or_else(|_| {
            let doing = format!("connect to {}", socket.display());
            Err(WireError::io(doing)(io::ErrorKind::TimedOut.into()))
        })?;
        Ok(Self { connection: Connection::new(stream), epoch })
    }

    /// Whether the next request of this life can go out on it.
    pub(super) fn serves(&mut self, epoch: Epoch) -> bool {
        self.epoch == epoch && self.connection.is_quiet()
    }
}

async fn greet(socket: &Path, client: Option<&RawDocument>) -> Result<LocalStream, WireError> {
    let mut hello = rawdoc! { "hello": 1 };
    if let Some(client) = client {
        hello.append(bson::raw::cstr!("client"), client);
    }
    let mut connection = Client::connect(socket).await?;
    let reply = connection.command_raw("admin", &hello).await?;
    if let Ok(refusal) = reply.get_str("errmsg") {
        // Metadata that a server does not take costs the client nothing but its name in the logs.
        debug!(refusal, "mongod does not take the client's metadata");
    }
    LocalStream::new(connection.into_inner()).map_err(WireError::io("watch a connection to mongod"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bson::RawDocumentBuf;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{UnixListener, UnixStream};

    use super::*;
    use crate::wire::{Msg, MsgFlags, encode_msg, read_message};

    /// A mongod that answers one message with this document, and then holds its connection.
    fn mongod(answer: RawDocumentBuf) -> (tempfile::TempDir, PathBuf, Peer) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("mongod.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hello = read_message(&mut stream, 10_000).await.unwrap().unwrap();
            let id = hello.header.request_id;
            stream.write_all(&encode_msg(1, id, MsgFlags::NONE, &answer)).await.unwrap();
            (Msg::parse(&hello.body).unwrap().body.to_owned(), stream)
        });
        (dir, socket, peer)
    }

    type Peer = tokio::task::JoinHandle<(RawDocumentBuf, UnixStream)>;

    #[tokio::test]
    async fn hello_is_said_in_the_clients_name_and_a_refusal_is_no_obstacle() {
        let client = rawdoc! { "application": { "name": "argon.dev" } };
        let with = rawdoc! { "hello": 1, "client": client.clone(), "$db": "admin" };
        let without = rawdoc! { "hello": 1, "$db": "admin" };
        let good = rawdoc! { "ok": 1 };
        let bad = rawdoc! { "ok": 0, "errmsg": "Missing required field 'driver'", "code": 183 };
        for (metadata, answer, expected) in [
            (Some(&*client), good.clone(), &with),
            (Some(&*client), bad, &with),
            (None, good, &without),
        ] {
            let (_dir, socket, peer) = mongod(answer);
            let mut back = Back::attach(&socket, Epoch(4), metadata).await.unwrap();
            let (heard, stream) = peer.await.unwrap();
            assert_eq!(heard, *expected);
            assert!(back.serves(Epoch(4)));
            assert!(!back.serves(Epoch(5)), "another life");
            drop(stream);
            back.connection.closed().await;
            assert!(!back.serves(Epoch(4)), "closed meanwhile");
        }
    }

    #[tokio::test]
    async fn a_socket_without_a_server_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("mongod.sock");
        assert!(Back::attach(&socket, Epoch(1), None).await.is_err());
        drop(UnixListener::bind(&socket).unwrap());
        assert!(Back::attach(&socket, Epoch(1), None).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_not_waited_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("mongod.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let error = Back::attach(&socket, Epoch(1), None).await.unwrap_err();
        assert!(error.retryable(), "{error}");
    }
}
