//! Large replies, moved by the kernel from mongod's socket to the client's by way of a pipe: the
//! bytes are never copied into this process. Source: splice(2).

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// What a pipe is asked to hold, bytes: what the kernel allows everybody
/// (`/proc/sys/fs/pipe-max-size`). It gives 64 KiB where that is refused.
const PIPE_BYTES: libc::c_int = 1 << 20;

/// What a socket can do beyond reading and writing. The defaults are those of a test's stream in
/// memory, which has no descriptor.
pub(super) trait Socket {
    /// Whether the kernel can move bytes from or to it.
    const SPLICES: bool = false;

    /// Whether the peer ended its side, although bytes of it are still to be read.
    fn is_hung_up(&self) -> bool {
        false
    }

    /// Moves at most `count` bytes that have come into the pipe; 0 is the end of the stream.
    fn poll_drain(
        &mut self,
        _context: &mut Context<'_>,
        _pipe: &Pipe,
        _count: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Moves at most `count` bytes out of the pipe, in which they are.
    fn poll_feed(
        &mut self,
        _context: &mut Context<'_>,
        _pipe: &Pipe,
        _count: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// Bytes on their way. What is in it when it is dropped is lost.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    bytes: libc::c_int,
}

impl Pipe {
    /// An empty pipe. Fails where the process has no descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        Self::sized(PIPE_BYTES)
    }

    fn sized(bytes: libc::c_int) -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: there is room for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call gave them to nobody else.
        let [out, into] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        // SAFETY: changes nothing but the pipe's size, and fails without harm.
        let bytes = unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
        Ok(Self { out, into, bytes })
    }

    /// Moves what has come of a stream into the pipe, without waiting.
    pub(super) fn take_from(&self, stream: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        splice(stream, self.into.as_fd(), count)
    }

    /// Moves bytes to a stream as far as it takes them without waiting.
    fn give_to(&self, stream: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        splice(self.out.as_fd(), stream, count)
    }

    /// Whether it holds what is read ahead of a message, and more besides.
    pub(super) fn is_roomy(&self) -> bool {
        self.bytes >= PIPE_BYTES
    }

    /// Puts bytes into it, as far as there is room.
    pub(super) fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: reads no more than the slice.
        let put = unsafe { libc::write(self.into.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        usize::try_from(put).map_err(|_| io::Error::last_os_error())
    }

    /// Waits for bytes of `stream`.
    pub(super) async fn fill<S: Socket>(&self, stream: &mut S, count: usize) -> io::Result<usize> {
        poll_fn(|context| stream.poll_drain(context, self, count)).await
    }

    /// Waits until `stream` took all of the `count` bytes that are in the pipe.
    pub(super) async fn empty<S: Socket>(&self, stream: &mut S, count: usize) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            match poll_fn(|context| stream.poll_feed(context, self, left)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                moved => left -= moved,
            }
        }
        Ok(())
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    use std::ptr::null_mut;
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open for as long as they are borrowed; no offsets are given.
    let moved = unsafe {
        libc::splice(from.as_raw_fd(), null_mut(), to.as_raw_fd(), null_mut(), count, flags)
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

macro_rules! splice_socket {
    ($($socket:ty),*) => {$(
        impl Socket for $socket {
            const SPLICES: bool = true;

            fn is_hung_up(&self) -> bool {
                let ready = self.ready(Interest::READABLE).now_or_never();
                ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
            }

            fn poll_feed(
                &mut self,
                context: &mut Context<'_>,
                pipe: &Pipe,
                count: usize,
            ) -> Poll<io::Result<usize>> {
                loop {
                    ready!(self.poll_write_ready(context))?;
                    match self.try_io(Interest::WRITABLE, || pipe.give_to(self.as_fd(), count)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        moved => return Poll::Ready(moved),
                    }
                }
            }
        }
    )*};
}
splice_socket!(TcpStream, UnixStream);

#[cfg(test)]
impl Socket for tokio::io::DuplexStream {}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::CancellationToken;

    use super::super::connection::Connection;
    use super::super::error::ProxyError;
    use super::super::local_stream::LocalStream;
    use super::super::response::{Broken, relay_reply, splice_on};
    use super::*;
    use crate::base::metrics::Metrics;
    use crate::branch::Standing;
    use crate::wire::{MsgFlags, encode_msg};

    fn reply(bytes: usize) -> Vec<u8> {
        // No two pages alike, so that a piece lost or moved shows.
        let text: String = (0..bytes).map(|n| char::from(b'a' + (n / 4093 % 26) as u8)).collect();
        let document: RawDocumentBuf = rawdoc! { "ok": 1, "x": text };
        encode_msg(9, 5, MsgFlags::NONE, &document).to_vec()
    }

    /// Relays what mongod sends to a client that reads all of it; gives what that got.
    async fn relay(sent: Vec<u8>) -> (Result<(), Broken>, Vec<u8>) {
        let (mongod, near) = UnixStream::pair().unwrap();
        let (client, mut far) = UnixStream::pair().unwrap();
        let mut branch = Connection::new(LocalStream::new(near).unwrap());
        let mut client = Connection::new(client);
        let writing = tokio::spawn(async move {
            let mut mongod = mongod;
            mongod.write_all(&sent).await
        });
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.map(|_| got)
        });
        let (drain, metrics) = (CancellationToken::new(), Metrics::new());
        let done =
            relay_reply(&mut branch, &mut client, 5, &drain, &metrics, || Standing::Good).await;
        drop((branch, client));
        writing.await.unwrap().ok();
        (done, reading.await.unwrap().unwrap())
    }

    #[tokio::test]
    async fn large_replies_pass_untouched() {
        for bytes in [100, 200_000, 262_144, 1 << 20, 17_000_000] {
            let whole = reply(bytes);
            let (done, got) = relay(whole.clone()).await;
            done.unwrap();
            assert!(got == whole, "{bytes}: {} of {} bytes came", got.len(), whole.len());
        }
    }

    #[tokio::test]
    async fn a_small_pipe_keeps_the_order_of_what_was_read_ahead() {
        for pipe_bytes in [4_096, 65_536, PIPE_BYTES] {
            let whole = reply(1 << 20);
            let (mut mongod, near) = UnixStream::pair().unwrap();
            let (client, mut far) = UnixStream::pair().unwrap();
            let mut branch = Connection::new(LocalStream::new(near).unwrap());
            let mut client = Connection::new(client);
            let sent = whole.clone();
            tokio::spawn(async move { mongod.write_all(&sent).await.map(|()| mongod) });
            branch.fill_to(65_536).await.unwrap();
            let mut got = vec![0; whole.len()];
            let pipe = Pipe::sized(pipe_bytes).unwrap();
            let (done, read) = tokio::join!(
                splice_on(&pipe, &mut branch, &mut client, whole.len()),
                far.read_exact(&mut got)
            );
            done.unwrap();
            read.unwrap();
            assert!(got == whole, "{pipe_bytes}");
        }
    }

    #[tokio::test]
    async fn a_reply_that_ends_early_is_torn() {
        for cut in [300_000, 1_000_000] {
            let mut whole = reply(1 << 20);
            whole.truncate(cut);
            let (done, got) = relay(whole.clone()).await;
            let torn = matches!(done, Err(Broken::Client(ProxyError::Torn { .. })));
            assert!(torn && got == whole, "{done:?} after {} of {cut}", got.len());
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_it() {
        let (mut mongod, near) = UnixStream::pair().unwrap();
        let (client, mut far) = UnixStream::pair().unwrap();
        let mut branch = Connection::new(LocalStream::new(near).unwrap());
        let mut client = Connection::new(client);
        tokio::spawn(async move { mongod.write_all(&reply(10_000_000)).await });
        tokio::spawn(async move { far.read_exact(&mut [0; 500_000]).await.map(drop) });
        let (drain, metrics) = (CancellationToken::new(), Metrics::new());
        let done =
            relay_reply(&mut branch, &mut client, 5, &drain, &metrics, || Standing::Good).await;
        assert!(matches!(done, Err(Broken::Client(ProxyError::Client { .. }))), "{done:?}");
    }

    #[tokio::test]
    async fn an_end_behind_more_than_is_read_ahead_is_seen() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut near = Connection::new(listener.accept().await.unwrap().0);
        far.write_all(&[7; 70_000]).await.unwrap();
        assert!(near.closed().now_or_never().is_none());
        drop(far);
        near.closed().await;
        assert!(!near.ahead().is_empty());
    }
}
