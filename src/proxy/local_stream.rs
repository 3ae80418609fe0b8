//! A Unix stream that does not wake its task's thread whenever the peer reads.
//!
//! The kernel reports a Unix socket as writable each time the peer took bytes out of it, whether
//! or not anybody waits to write: for a stream that is registered for both directions, that is one
//! wake-up of the runtime for each command, for nothing. This one is registered for reading, and
//! for writing only while a write has to wait.

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::splice::{Pipe, Socket};

/// See the module.
#[derive(Debug)]
pub(super) struct LocalStream {
    stream: AsyncFd<UnixStream>,
    /// While the peer's buffer is full: the same socket, registered for writing. Let go at the
    /// next flush.
    waiting: Option<AsyncFd<UnixStream>>,
}

impl LocalStream {
    /// Takes over a stream.
    pub(super) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Ok(Self { stream: watch(stream.into_std()?, Interest::READABLE)?, waiting: None })
    }

    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.get_ref().write(bytes)
    }
}

fn watch(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: a UnixStream owns its descriptor and gives the same one for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(stream, interest) }?)
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut readable = ready!(self.stream.poll_read_ready(context))?;
            // SAFETY: `recv` only writes into it.
            let room = unsafe { buffer.unfilled_mut() };
            let read = readable.try_io(|stream| SockRef::from(stream.get_ref()).recv(room));
            let Ok(read) = read else { continue };
            let count = match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            if 0 < count && count < room.len() {
                // All there was: asking again would be a system call for nothing.
                readable.clear_ready();
            }
            // SAFETY: `recv` filled that many bytes.
            unsafe { buffer.assume_init(count) };
            buffer.advance(count);
            return Poll::Ready(Ok(()));
        }
    }
}

impl Socket for LocalStream {
    const SPLICES: bool = true;

    fn poll_drain(
        &mut self,
        context: &mut Context<'_>,
        pipe: &Pipe,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut readable = ready!(self.stream.poll_read_ready(context))?;
            if let Ok(moved) =
                readable.try_io(|stream| pipe.take_from(stream.get_ref().as_fd(), count))
            {
                return Poll::Ready(moved);
            }
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.is_none() {
            match self.write_now(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
            // A descriptor of its own: one cannot be registered twice.
            let twin = self.stream.get_ref().try_clone()?;
            self.waiting = Some(watch(twin, Interest::WRITABLE)?);
        }
        let waiting = self.waiting.as_ref().expect("it was just made, or was there");
        loop {
            let mut writable = ready!(waiting.poll_write_ready(context))?;
            if let Ok(written) = writable.try_io(|stream| stream.get_ref().write(bytes)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net;

    use super::*;

    fn pair() -> (net::UnixStream, LocalStream) {
        let (far, near) = net::UnixStream::pair().unwrap();
        (far, LocalStream::new(near).unwrap())
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_however_they_are_cut() {
        for (bytes, room) in [(1, 1), (5, 2), (4096, 4096), (5000, 4096), (3_000_000, 65_536)] {
            let (far, mut near) = pair();
            let sent: Vec<u8> = (0..bytes).map(|number| number as u8).collect();
            let echo = tokio::spawn(async move {
                let (mut from, mut to) = far.into_split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
            });
            let (mut got, mut left) = (Vec::new(), &sent[..]);
            while got.len() < bytes {
                // Everything the sockets take, then what comes back: neither direction may starve.
                while let Some(count) = near.write(left).now_or_never() {
                    left = &left[count.unwrap()..];
                    if left.is_empty() {
                        near.flush().await.unwrap();
                        assert!(near.waiting.is_none());
                        break;
                    }
                }
                let mut buffer = vec![0; room];
                let count = near.read(&mut buffer).await.unwrap();
                got.extend_from_slice(&buffer[..count]);
            }
            assert!(got == sent, "{bytes} bytes, {room} at once");
            near.shutdown().await.unwrap();
            assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
            echo.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_write_waits_for_room_and_only_then_is_registered() {
        let (mut far, mut near) = pair();
        let bytes = vec![7; 4_000_000];
        near.write_all(b"small").await.unwrap();
        assert!(near.waiting.is_none());
        let reading = tokio::spawn(async move {
            let mut got = vec![0; 4_000_005];
            far.read_exact(&mut got).await.unwrap();
            far
        });
        near.write_all(&bytes).await.unwrap();
        assert!(near.waiting.is_some());
        near.flush().await.unwrap();
        assert!(near.waiting.is_none());
        drop(reading.await.unwrap());
        assert!(near.write_all(b"x").await.is_err(), "nobody is there");
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_end_that_comes_with_bytes_is_seen() {
        let (mut far, mut near) = pair();
        let mut buffer = [0; 64];
        assert!(near.read(&mut buffer).now_or_never().is_none());
        far.write_all(b"last").await.unwrap();
        drop(far);
        assert_eq!(near.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(near.read(&mut buffer).await.unwrap(), 0);
    }
}
