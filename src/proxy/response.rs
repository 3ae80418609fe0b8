//! mongod's reply on its way to the client: header checked, bytes untouched, in chunks.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::dying::{HEAD_BYTES, last_words, suspicious};
use super::error::ProxyError;
use super::request::unless_stalled;
use super::splice::{Pipe, Socket};
use crate::base::limits::RELAY_BYTES;
use crate::base::metrics::{Metrics, Step};
use crate::branch::Standing;
use crate::wire::{Header, MsgFlags, OpCode, WireError};

/// Less than this is copied, bytes: a pipe costs some system calls.
const SPLICE_BYTES_MIN: usize = 4 * RELAY_BYTES;

/// Why a reply did not reach the client whole.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nobody is left to be answered, or the client has half a reply.
    Client(ProxyError),
    /// mongod failed, and the client has nothing of this reply: it can still be told.
    Branch {
        /// How it failed.
        source: WireError,
        /// What a reply made here must say it answers.
        answers: i32,
    },
    /// This server may not speak for the branch any more. The client has nothing of this reply.
    Lapsed {
        /// What a reply made here must say it answers.
        answers: i32,
    },
    /// mongod answered that it is being stopped. The client has nothing of that.
    Stopping {
        /// Its code and text.
        last_words: String,
        /// What a reply made here must say it answers.
        answers: i32,
    },
}

/// Passes the reply to request `id` on; where it announces that more follow without being asked
/// for (exhaust), those too. A client that hangs up, and a drain between two of them, end it.
/// `standing` says whether mongod is being stopped, and whether it may be heard. Not cancel safe.
pub(super) async fn relay_reply<C, B>(
    branch: &mut Connection<B>,
    client: &mut Connection<C>,
    id: i32,
    drain: &CancellationToken,
    metrics: &Metrics,
    standing: impl Fn() -> Standing,
) -> Result<(), Broken>
where
    C: AsyncRead + AsyncWrite + Socket + Unpin,
    B: AsyncRead + AsyncWrite + Socket + Unpin,
{
    let mut answers = id;
    loop {
        let announced = select! {
            announced = announcement(branch, answers) => announced,
            () = client.closed() => return Err(Broken::Client(ProxyError::HungUp)),
        };
        let (header, flags) = announced.map_err(|source| Broken::Branch { source, answers })?;
        let head = &branch.ahead()[..branch.ahead().len().min(HEAD_BYTES)];
        let stands = standing();
        if stands == Standing::Lapsed {
            return Err(Broken::Lapsed { answers });
        }
        if suspicious(&header, head, stands == Standing::Over) {
            let length = header.length as usize;
            let whole = branch.fill_to(length).await;
            whole.map_err(|source| Broken::Branch { source, answers })?;
            if let Some(last_words) = last_words(&branch.ahead()[Header::BYTES..length]) {
                branch.consume(length);
                return Err(Broken::Stopping { last_words, answers });
            }
        }
        let begun = Instant::now();
        pass_on(branch, client, &header, answers).await?;
        if header.length as usize <= RELAY_BYTES {
            metrics.held(Step::Reply, begun.elapsed());
        }
        if !flags.contains(MsgFlags::MORE_TO_COME) {
            return Ok(());
        }
        if drain.is_cancelled() {
            return Err(Broken::Client(ProxyError::Drained));
        }
        answers = header.request_id;
    }
}

/// Waits for the beginning of a reply: its header and, where it has some, its flags. Takes
/// nothing. Cancel safe.
async fn announcement<B: AsyncRead + AsyncWrite + Unpin>(
    branch: &mut Connection<B>,
    answers: i32,
) -> Result<(Header, MsgFlags), WireError> {
    let header = branch.header().await?;
    let header = header.ok_or(WireError::Cut { expected: Header::BYTES, got: 0 })?;
    if header.response_to != answers || !matches!(header.opcode, OpCode::Msg | OpCode::Reply) {
        return Err(WireError::WrongReply {
            request_id: answers,
            response_to: header.response_to,
            opcode: header.opcode,
        });
    }
    if header.opcode == OpCode::Reply {
        return Ok((header, MsgFlags::NONE));
    }
    const FLAGS_END: usize = Header::BYTES + 4;
    if (header.length as usize) < FLAGS_END {
        return Err(WireError::Malformed { part: "reply", problem: "it has no flags" });
    }
    branch.fill_to(HEAD_BYTES.min(header.length as usize)).await?;
    let flags = branch.ahead()[Header::BYTES..].first_chunk().copied();
    Ok((header, MsgFlags(u32::from_le_bytes(flags.expect("four bytes were waited for")))))
}

async fn pass_on<C, B>(
    branch: &mut Connection<B>,
    client: &mut Connection<C>,
    header: &Header,
    answers: i32,
) -> Result<(), Broken>
where
    C: AsyncRead + AsyncWrite + Socket + Unpin,
    B: AsyncRead + AsyncWrite + Socket + Unpin,
{
    let whole = header.length as usize;
    let mut left = whole;
    if C::SPLICES && B::SPLICES && whole >= SPLICE_BYTES_MIN {
        // Without a descriptor to spare, all of it is copied.
        if let Ok(pipe) = Pipe::new() {
            return splice_on(&pipe, branch, client, whole).await;
        }
    }
    while left > 0 {
        let chunk = branch.chunk(left).await.map_err(|source| match left == whole {
            true => Broken::Branch { source, answers },
            false => Broken::Client(ProxyError::Torn { source }),
        })?;
        let count = chunk.len();
        unless_stalled(client.write(chunk)).await.map_err(Broken::Client)?;
        branch.consume(count);
        left -= count;
    }
    unless_stalled(client.flush()).await.map_err(Broken::Client)
}

/// Passes a reply on, of which only what is ahead already is ever in this process.
pub(super) async fn splice_on<C: Socket, B: Socket>(
    pipe: &Pipe,
    branch: &mut Connection<B>,
    client: &mut Connection<C>,
    whole: usize,
) -> Result<(), Broken> {
    let torn = |source| Broken::Client(ProxyError::Torn { source });
    let mut left = whole;
    while left > 0 {
        // What is ahead comes first, however small the pipe is.
        let ahead = &branch.ahead()[..branch.ahead().len().min(left)];
        let mut held = match ahead {
            [] => 0,
            ahead => {
                pipe.put(ahead).map_err(WireError::io("put a reply into a pipe")).map_err(torn)?
            }
        };
        branch.consume(held);
        left -= held;
        // Together with what follows, so that the client is not woken for a few bytes; but a full
        // pipe would look like a mongod that sends nothing.
        if left > 0 && branch.ahead().is_empty() && (held == 0 || pipe.is_roomy()) {
            let moved = match pipe.fill(branch.stream(), left).await {
                Ok(0) => return Err(torn(WireError::Cut { expected: left, got: 0 })),
                moved => moved.map_err(WireError::io("read a message's body")).map_err(torn)?,
            };
            held += moved;
            left -= moved;
        }
        let written = async {
            pipe.empty(client.stream(), held).await.map_err(WireError::io("write a message"))
        };
        unless_stalled(written).await.map_err(Broken::Client)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::wire::{ReplyFlags, encode_msg, encode_reply};

    struct Scene {
        far: DuplexStream,
        client: Connection<DuplexStream>,
        branch: Connection<DuplexStream>,
        mongod: DuplexStream,
        drain: CancellationToken,
    }

    impl Scene {
        fn new() -> Self {
            let (far, near) = duplex(1 << 20);
            let (back, mongod) = duplex(1 << 20);
            let (client, branch) = (Connection::new(near), Connection::new(back));
            Self { far, client, branch, mongod, drain: CancellationToken::new() }
        }

        async fn relay(&mut self) -> Result<(), Broken> {
            let (metrics, good) = (Metrics::new(), || Standing::Good);
            let (branch, client) = (&mut self.branch, &mut self.client);
            relay_reply(branch, client, 5, &self.drain, &metrics, good).await
        }

        /// Everything that the client got.
        async fn got(self) -> Vec<u8> {
            let Self { mut far, client, .. } = self;
            drop(client);
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        }
    }

    fn reply(id: i32, answers: i32, flags: MsgFlags, bytes: usize) -> Vec<u8> {
        encode_msg(id, answers, flags, &rawdoc! { "ok": 1, "x": "x".repeat(bytes) }).to_vec()
    }

    #[tokio::test]
    async fn replies_of_any_size_and_kind_pass_untouched() {
        let old = encode_reply(9, 5, ReplyFlags::SUCCESS, &rawdoc! { "ok": 1 });
        for bytes in [
            reply(9, 5, MsgFlags::NONE, 0),
            reply(9, 5, MsgFlags::NONE, 500_000),
            [reply(9, 5, MsgFlags::MORE_TO_COME, 10), reply(10, 9, MsgFlags::NONE, 10)].concat(),
            old.to_vec(),
        ] {
            let mut scene = Scene::new();
            scene.mongod.write_all(&bytes).await.unwrap();
            scene.relay().await.unwrap();
            assert!(scene.branch.is_quiet());
            assert!(scene.got().await == bytes);
        }
    }

    #[tokio::test]
    async fn a_server_that_may_not_speak_for_the_branch_passes_nothing_on() {
        let mut scene = Scene::new();
        scene.mongod.write_all(&reply(9, 5, MsgFlags::NONE, 10)).await.unwrap();
        let (metrics, lapsed) = (Metrics::new(), || Standing::Lapsed);
        let (branch, client) = (&mut scene.branch, &mut scene.client);
        let relayed = relay_reply(branch, client, 5, &scene.drain, &metrics, lapsed).await;
        assert!(matches!(relayed, Err(Broken::Lapsed { answers: 5 })), "{relayed:?}");
        assert!(scene.got().await.is_empty());
    }

    #[tokio::test]
    async fn a_mongod_that_dies_between_replies_leaves_a_client_that_can_be_told() {
        let first = reply(9, 5, MsgFlags::MORE_TO_COME, 0);
        let wrong = reply(9, 6, MsgFlags::NONE, 0);
        let query = [&20_i32.to_le_bytes()[..], &[0; 4], &5_i32.to_le_bytes(), &[1; 4]].concat();
        let mut flagless = encode_msg(9, 5, MsgFlags::NONE, &rawdoc! {}).to_vec();
        flagless[0] = 18;
        for (what, sent, answers, passed) in [
            ("at once", &[][..], 5, 0),
            ("inside the header", &first[..9], 5, 0),
            ("before the flags", &first[..18], 5, 0),
            ("after one of an exhaust", &first[..], 9, first.len()),
            ("answers another", &wrong, 5, 0),
            ("no reply", &query, 5, 0),
            ("without flags", &flagless, 5, 0),
        ] {
            let mut scene = Scene::new();
            scene.mongod.write_all(sent).await.unwrap();
            scene.mongod.shutdown().await.unwrap();
            match scene.relay().await {
                Err(Broken::Branch { answers: found, .. }) => assert_eq!(found, answers, "{what}"),
                other => panic!("{what}: {other:?}"),
            }
            assert_eq!(scene.got().await.len(), passed, "{what}");
        }
    }

    #[tokio::test]
    async fn a_reply_torn_in_the_middle_ends_the_client() {
        let mut scene = Scene::new();
        let whole = reply(9, 5, MsgFlags::NONE, 1000);
        scene.mongod.write_all(&whole[..500]).await.unwrap();
        scene.mongod.shutdown().await.unwrap();
        let outcome = scene.relay().await;
        assert!(matches!(outcome, Err(Broken::Client(ProxyError::Torn { .. }))), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_ends_the_wait() {
        let mut scene = Scene::new();
        assert!(scene.relay().now_or_never().is_none());
        scene.far.write_all(b"the next command").await.unwrap();
        assert!(scene.relay().now_or_never().is_none());
        scene.far.shutdown().await.unwrap();
        let outcome = scene.relay().await;
        assert!(matches!(outcome, Err(Broken::Client(ProxyError::HungUp))), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_drain_ends_an_endless_reply_between_two_messages() {
        let mut scene = Scene::new();
        let first = reply(9, 5, MsgFlags::MORE_TO_COME, 0);
        scene.mongod.write_all(&first).await.unwrap();
        scene.drain.cancel();
        let outcome = scene.relay().await;
        assert!(matches!(outcome, Err(Broken::Client(ProxyError::Drained))), "{outcome:?}");
        assert_eq!(scene.got().await, first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_half_a_reply_is_given_up() {
        let mut scene = Scene::new();
        let (far, near) = duplex(64);
        scene.client = Connection::new(near);
        scene.mongod.write_all(&reply(9, 5, MsgFlags::NONE, 1000)).await.unwrap();
        let outcome = scene.relay().await;
        assert!(matches!(outcome, Err(Broken::Client(ProxyError::Stalled { .. }))), "{outcome:?}");
        drop(far);
    }
}
