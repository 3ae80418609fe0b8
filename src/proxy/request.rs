//! A client's OP_MSG on its way to mongod: skimmed, and passed on or thrown away in chunks.

use std::time::Duration;

use bson::RawDocument;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::class::{Class, classify};
use super::connection::Connection;
use super::error::ProxyError;
use super::pace::Pace;
use super::skim::{Found, Skim};
use crate::base::limits::{CLIENT_STALL, RELAY_BYTES};
use crate::wire::{Header, Msg, MsgFlags, WireError};

/// A message of which the beginning is in the client's buffer, all of it where it is small.
#[derive(Debug)]
pub(super) struct Request {
    header: Header,
    skim: Skim,
    /// Bytes of the body that the skim saw.
    skimmed: usize,
    /// Bytes of the message that are still to be taken from the client.
    left: usize,
    pace: Pace,
}

/// Which side of a relay failed.
#[derive(Debug)]
pub(super) enum Side {
    /// The client: nobody is left to be answered.
    Client(ProxyError),
    /// The branch's mongod.
    Branch(WireError),
}

impl Request {
    /// Waits for the beginning of the message whose header is ahead. Nothing of it is taken yet.
    pub(super) async fn open<C: AsyncRead + AsyncWrite + Unpin>(
        client: &mut Connection<C>,
        header: Header,
    ) -> Result<Self, ProxyError> {
        let length = header.length as usize;
        let beginning = length.min(RELAY_BYTES);
        unless_stalled(client.fill_to(beginning)).await?;
        let mut skim = Skim::new(header.body_bytes());
        skim.feed(&client.ahead()[Header::BYTES..beginning]).map_err(ProxyError::client)?;
        if beginning == length && skim.found().command.is_none() {
            let problem = "it ends before its command";
            return Err(ProxyError::client(WireError::Malformed { part: "OP_MSG", problem }));
        }
        Ok(Self {
            header,
            skim,
            skimmed: beginning - Header::BYTES,
            left: length,
            pace: Pace::default(),
        })
    }

    /// What is known of the command.
    pub(super) fn found(&self) -> &Found {
        self.skim.found()
    }

    /// The id that a reply must name.
    pub(super) fn id(&self) -> i32 {
        self.header.request_id
    }

    /// The command's class. A name that did not come with the first chunk is taken for a write's:
    /// no other has so much to say before it.
    pub(super) fn class(&self) -> Class {
        self.found().command.as_deref().map_or(Class::Work, classify)
    }

    /// Whether it is part of a transaction that began before it; known only of a command whose
    /// document is in the client's buffer.
    pub(super) fn continues_transaction(&self) -> bool {
        let found = self.found();
        self.skim.is_complete() && found.in_transaction && !found.starts_transaction
    }

    /// Whether the client waits for a reply.
    pub(super) fn wants_reply(&self) -> bool {
        !self.found().flags.is_some_and(|flags| flags.contains(MsgFlags::MORE_TO_COME))
    }

    /// Whether the proxy holds all of it at once, so that its time is not the client's.
    pub(super) fn is_small(&self) -> bool {
        self.header.length as usize <= RELAY_BYTES
    }

    /// The command's document, where the message is whole in the client's buffer.
    pub(super) fn document<'c, C>(
        &self,
        client: &'c Connection<C>,
    ) -> Result<Option<&'c RawDocument>, ProxyError> {
        let body = client.ahead().get(Header::BYTES..self.header.length as usize);
        let msg = body.map(Msg::parse).transpose().map_err(ProxyError::client)?;
        Ok(msg.map(|msg| msg.body))
    }

    /// Passes the message on, untouched. Not cancel safe.
    pub(super) async fn forward<C, B>(
        &mut self,
        client: &mut Connection<C>,
        branch: &mut Connection<B>,
    ) -> Result<(), Side>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        while self.left > 0 {
            let chunk = self.take(client).await.map_err(Side::Client)?;
            branch.write(&chunk).await.map_err(Side::Branch)?;
        }
        branch.flush().await.map_err(Side::Branch)
    }

    /// Takes what is left of the message from the client, for a reply to follow. Not cancel safe.
    pub(super) async fn discard<C: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Connection<C>,
    ) -> Result<(), ProxyError> {
        while self.left > 0 {
            self.take(client).await?;
        }
        Ok(())
    }

    async fn take<C: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Connection<C>,
    ) -> Result<BytesMut, ProxyError> {
        let start = self.header.length as usize - self.left;
        let chunk = self.pace.wait(client.chunk(self.left)).await?;
        self.pace.came(chunk.len());
        self.left -= chunk.len();
        let news = (Header::BYTES + self.skimmed).saturating_sub(start);
        if let Some(news) = chunk.get(news..).filter(|news| !news.is_empty()) {
            self.look_at(news)?;
        }
        Ok(chunk)
    }

    /// Skims what comes after the beginning. Once the command is known, what is wrong with the
    /// rest is mongod's to say.
    fn look_at(&mut self, bytes: &[u8]) -> Result<(), ProxyError> {
        self.skimmed += bytes.len();
        let unknown = self.found().command.is_none();
        let sound = self.skim.feed(bytes);
        if !unknown {
            return Ok(());
        }
        sound.map_err(ProxyError::client)?;
        match self.found().command.as_deref() {
            Some(command) if self.class() != Class::Work => {
                Err(ProxyError::Hidden { command: command.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// A step of reading from or writing to a client that must not take long once it began.
pub(super) async fn unless_stalled<T>(
    step: impl Future<Output = Result<T, WireError>>,
) -> Result<T, ProxyError> {
    const WAITED: Duration = CLIENT_STALL;
    let stalled = |_| ProxyError::Stalled { waited: WAITED };
    timeout(WAITED, step).await.map_err(stalled)?.map_err(ProxyError::client)
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::wire::{OpCode, encode_msg};

    fn message(flags: MsgFlags, sections: &[&[u8]]) -> Vec<u8> {
        let body = [&flags.0.to_le_bytes()[..], &sections.concat()].concat();
        let length = (16 + body.len()) as u32;
        let header = Header { length, request_id: 7, response_to: 0, opcode: OpCode::Msg };
        [&header.encode()[..], &body].concat()
    }

    fn kind0(document: &RawDocumentBuf) -> Vec<u8> {
        [&[0], document.as_bytes()].concat()
    }

    fn kind1(bytes: usize) -> Vec<u8> {
        [&[1][..], &((4 + 2 + bytes) as i32).to_le_bytes(), b"d\0", &vec![1; bytes]].concat()
    }

    async fn open(client: &mut Connection<DuplexStream>) -> Result<Request, ProxyError> {
        let header = client.header().await.unwrap().unwrap();
        Request::open(client, header).await
    }

    /// What forwarding `bytes` brings to the other side, and what was found.
    async fn forward(bytes: Vec<u8>) -> Result<(Vec<u8>, Found), Side> {
        let (mut far, near) = duplex(4096);
        let (back, mut mongod) = duplex(4096);
        let sending = tokio::spawn(async move { far.write_all(&bytes).await.map(|()| far) });
        let receiving = tokio::spawn(async move {
            let mut got = Vec::new();
            mongod.read_to_end(&mut got).await.map(|_| got)
        });
        let (mut client, mut branch) = (Connection::new(near), Connection::new(back));
        let mut request = open(&mut client).await.map_err(Side::Client)?;
        request.forward(&mut client, &mut branch).await?;
        drop(branch);
        drop(sending);
        Ok((receiving.await.unwrap().unwrap(), request.found().clone()))
    }

    /// How a message of 200 kB fares of which a client, after its beginning, sends so many bytes a
    /// second.
    async fn at_this_pace(bytes_a_second: usize) -> (Result<(), Side>, Duration) {
        let whole = message(MsgFlags::NONE, &[&kind0(&rawdoc! { "insert": "c" }), &kind1(200_000)]);
        let (mut far, near) = duplex(4096);
        let (back, mut mongod) = duplex(4096);
        let sending = async move {
            far.write_all(&whole[..RELAY_BYTES]).await.unwrap();
            for some in whole[RELAY_BYTES..].chunks(bytes_a_second) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                far.write_all(some).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let receiving = async { tokio::io::copy(&mut mongod, &mut tokio::io::sink()).await };
        let (mut client, mut branch) = (Connection::new(near), Connection::new(back));
        let forwarding = async {
            let mut request = open(&mut client).await.unwrap();
            let started = tokio::time::Instant::now();
            let outcome = request.forward(&mut client, &mut branch).await;
            (outcome, started.elapsed())
        };
        tokio::select! {
            outcome = forwarding => outcome,
            () = sending => unreachable!("it never ends"),
            _ = receiving => unreachable!("the branch is not closed"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_served_and_one_that_dribbles_is_given_up() {
        let (outcome, took) = at_this_pace(1000).await;
        assert!(outcome.is_ok() && took > CLIENT_STALL, "{outcome:?} after {took:?}");
        let (outcome, took) = at_this_pace(1).await;
        let stalled = matches!(outcome, Err(Side::Client(ProxyError::Stalled { .. })));
        assert!(stalled && took <= 2 * CLIENT_STALL, "{outcome:?} after {took:?}");
    }

    #[tokio::test]
    async fn messages_of_any_size_pass_untouched() {
        let mut late = rawdoc! { "insert": "c", "documents": ["x".repeat(3_000_000)] };
        late.append(bson::raw::cstr!("txnNumber"), 1_i64);
        let insert = rawdoc! { "insert": "c" };
        for (sections, has_txn_number) in [
            (vec![kind0(&insert)], false),
            (vec![kind0(&insert), kind1(RELAY_BYTES)], false),
            (vec![kind1(5_000_000), kind0(&insert)], false),
            (vec![kind0(&late)], true),
        ] {
            let sections: Vec<&[u8]> = sections.iter().map(Vec::as_slice).collect();
            let whole = message(MsgFlags::NONE, &sections);
            let (got, found) = forward(whole.clone()).await.unwrap();
            assert!(got == whole, "{} of {} bytes", got.len(), whole.len());
            assert_eq!(found.command.as_deref(), Some("insert"));
            assert_eq!(found.has_txn_number, has_txn_number);
        }
    }

    #[tokio::test]
    async fn a_command_cannot_hide_behind_a_long_sequence() {
        for name in ["shutdown", "hello", "serverStatus", "endSessions"] {
            let mut command = RawDocumentBuf::new();
            command.append(<&bson::raw::CStr>::try_from(name).unwrap(), 1);
            let hidden = message(MsgFlags::NONE, &[&kind1(RELAY_BYTES), &kind0(&command)]);
            match forward(hidden).await {
                Err(Side::Client(ProxyError::Hidden { command })) => assert_eq!(command, name),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_small_command_is_whole_and_a_discarded_one_leaves_the_next() {
        let first = rawdoc! { "endSessions": [1] };
        let second = rawdoc! { "ping": 1 };
        let large = message(MsgFlags::MORE_TO_COME, &[&kind0(&first), &kind1(300_000)]);
        let (mut far, near) = duplex(1 << 20);
        far.write_all(&message(MsgFlags::NONE, &[&kind0(&first)])).await.unwrap();
        far.write_all(&large).await.unwrap();
        far.write_all(&encode_msg(8, 0, MsgFlags::NONE, &second)).await.unwrap();
        let mut client = Connection::new(near);

        let mut small = open(&mut client).await.unwrap();
        assert_eq!(small.document(&client).unwrap(), Some(&*first));
        assert!(small.wants_reply());
        small.discard(&mut client).await.unwrap();

        let mut large = open(&mut client).await.unwrap();
        assert_eq!(large.document(&client).unwrap(), None);
        assert!(!large.wants_reply());
        large.discard(&mut client).await.unwrap();

        let last = open(&mut client).await.unwrap();
        assert_eq!(last.id(), 8);
        assert_eq!(last.document(&client).unwrap(), Some(&*second));
    }

    #[tokio::test]
    async fn cut_and_malformed_messages_are_the_clients_failure() {
        let insert = kind0(&rawdoc! { "insert": "c" });
        let long = message(MsgFlags::NONE, &[&insert, &kind1(100_000)]);
        for (what, bytes) in [
            ("cut in the beginning", long[..30].to_vec()),
            ("cut later", long[..90_000].to_vec()),
            ("no command", message(MsgFlags::NONE, &[&kind1(5)])),
            ("two commands", message(MsgFlags::NONE, &[&insert, &insert])),
            ("unknown flag", message(MsgFlags(8), &[&insert])),
        ] {
            let (mut far, near) = duplex(1 << 20);
            far.write_all(&bytes).await.unwrap();
            drop(far);
            let (back, _mongod) = duplex(1 << 20);
            let (mut client, mut branch) = (Connection::new(near), Connection::new(back));
            let outcome = match open(&mut client).await {
                Ok(mut request) => request.forward(&mut client, &mut branch).await,
                Err(error) => Err(Side::Client(error)),
            };
            assert!(
                matches!(outcome, Err(Side::Client(ProxyError::Client { .. }))),
                "{what}: {outcome:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stands_still_inside_a_message_is_given_up() {
        let whole = message(MsgFlags::NONE, &[&kind0(&rawdoc! { "insert": "c" }), &kind1(90_000)]);
        let (mut far, near) = duplex(1 << 20);
        far.write_all(&whole[..80_000]).await.unwrap();
        let (back, _mongod) = duplex(1 << 20);
        let (mut client, mut branch) = (Connection::new(near), Connection::new(back));
        let mut request = open(&mut client).await.unwrap();
        let outcome = request.forward(&mut client, &mut branch).await;
        assert!(matches!(outcome, Err(Side::Client(ProxyError::Stalled { .. }))), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_branch_that_is_gone_is_the_branchs_failure() {
        let whole = message(MsgFlags::NONE, &[&kind0(&rawdoc! { "insert": "c" })]);
        let (mut far, near) = duplex(1 << 20);
        far.write_all(&whole).await.unwrap();
        let (back, mongod) = duplex(16);
        drop(mongod);
        let (mut client, mut branch) = (Connection::new(near), Connection::new(back));
        let mut request = open(&mut client).await.unwrap();
        let outcome = request.forward(&mut client, &mut branch).await;
        assert!(matches!(outcome, Err(Side::Branch(_))), "{outcome:?}");
    }
}
