//! A byte stream with what was read ahead of need, client's and mongod's side alike.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{sleep, timeout};

use super::splice::Socket;
use crate::base::limits::RELAY_BYTES;
use crate::wire::{Header, WireError};

/// Read at once where nothing says that more will come: most commands are smaller.
const SMALL_BYTES: usize = 4 * 1024;

/// Between two looks whether a client hung up that sent more than is read ahead of it.
const HANG_UP_LOOK: Duration = Duration::from_secs(1);

/// What a connection that waits for its next message keeps of its buffer, for the next one.
const KEPT_BYTES: usize = 512;

/// A connection. Reading goes into a buffer of at most [`RELAY_BYTES`], of which the owner marks
/// what it handled; so any wait for bytes can be dropped without losing one.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    /// How much of the buffer was handled.
    handled: usize,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), handled: 0 }
    }

    /// The stream itself. Who takes bytes from it must have handled all that is ahead.
    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// What was read and not yet handled.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.buffer[self.handled..]
    }

    /// Marks the first `count` bytes as handled.
    pub(super) fn consume(&mut self, count: usize) {
        self.handled += count;
        debug_assert!(self.handled <= self.buffer.len());
        if self.handled == self.buffer.len() {
            self.buffer.clear();
            self.handled = 0;
        }
    }

    /// Replaces the first `count` bytes, as though these had been read.
    pub(super) fn replace(&mut self, count: usize, with: &[u8]) {
        self.buffer = [with, &self.ahead()[count..]].concat();
        self.handled = 0;
    }

    /// Gives the memory back that a large message took.
    pub(super) fn shrink(&mut self) {
        if self.buffer.capacity() > KEPT_BYTES {
            self.move_up();
            self.buffer.shrink_to(KEPT_BYTES);
        }
    }

    /// Brings what is ahead to the buffer's beginning.
    fn move_up(&mut self) {
        self.buffer.drain(..self.handled);
        self.handled = 0;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads at least one byte more; 0 is the end of the stream. Must not be called with
    /// [`RELAY_BYTES`] ahead. Cancel safe.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.move_up();
        let left = RELAY_BYTES.saturating_sub(self.buffer.len()).max(1);
        if self.buffer.len() < SMALL_BYTES {
            return self.fill_small(left).await;
        }
        // Four times what is there: a large message soon moves in whole chunks, and nobody makes
        // a large buffer by announcing a large message.
        let room = left.min(3 * self.buffer.len());
        self.buffer.reserve(room);
        let mut limited = (&mut self.buffer).limit(room);
        self.stream.read_buf(&mut limited).await
    }

    /// Reads by way of the stack, so that a connection that waits has no buffer for what it waits
    /// for.
    async fn fill_small(&mut self, left: usize) -> io::Result<usize> {
        let Self { stream, buffer, .. } = self;
        poll_fn(|context| {
            let mut room = [MaybeUninit::<u8>::uninit(); SMALL_BYTES];
            let mut read = ReadBuf::uninit(&mut room[..left.min(SMALL_BYTES)]);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }

    /// Like [`Self::fill`] on an empty buffer, with as much room as a chunk of a message has.
    async fn fill_chunk(&mut self, left: usize) -> io::Result<usize> {
        if left <= SMALL_BYTES {
            return self.fill().await;
        }
        self.buffer.reserve(RELAY_BYTES);
        let mut limited = (&mut self.buffer).limit(RELAY_BYTES);
        self.stream.read_buf(&mut limited).await
    }

    /// Waits until something is ahead; `false` is the end of the stream. Cancel safe.
    pub(super) async fn begun(&mut self) -> Result<bool, WireError> {
        let nothing = self.ahead().is_empty();
        Ok(!nothing || self.fill().await.map_err(WireError::io("read a message"))? > 0)
    }

    /// Waits until a whole header is ahead and reads it without taking it; `None` is the end of
    /// the stream between messages. Cancel safe.
    pub(super) async fn header(&mut self) -> Result<Option<Header>, WireError> {
        loop {
            if let Some(head) = self.ahead().first_chunk() {
                return Header::parse(head).map(Some);
            }
            match self.fill().await.map_err(WireError::io("read a message"))? {
                0 if self.ahead().is_empty() => return Ok(None),
                0 => return Err(cut(Header::BYTES, self.ahead().len())),
                _ => {}
            }
        }
    }

    /// Waits until `count` bytes are ahead, at most [`RELAY_BYTES`]. Cancel safe.
    pub(super) async fn fill_to(&mut self, count: usize) -> Result<(), WireError> {
        while self.ahead().len() < count.min(RELAY_BYTES) {
            if self.fill().await.map_err(WireError::io("read a message"))? == 0 {
                return Err(cut(count, self.ahead().len()));
            }
        }
        Ok(())
    }

    /// Waits for the next bytes of a message of which `left` are still to come, at most as many.
    /// They stay ahead until they are marked as handled. Cancel safe.
    pub(super) async fn chunk(&mut self, left: usize) -> Result<&[u8], WireError> {
        if self.ahead().is_empty() {
            let count = self.fill_chunk(left).await;
            if count.map_err(WireError::io("read a message's body"))? == 0 {
                return Err(cut(left, 0));
            }
        }
        Ok(&self.ahead()[..left.min(self.ahead().len())])
    }

    /// Whether the connection is open and silent right now, as one at rest must be.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.ahead().is_empty() && self.fill().now_or_never().is_none()
    }

    /// Sends all of it. Not cancel safe.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.stream.write_all(bytes).await.map_err(WireError::io("write a message"))
    }

    /// Sends what the stream may have kept back.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        self.stream.flush().await.map_err(WireError::io("write a message"))
    }

    /// Sends a last word, ends the sending side, and waits a little for the peer to end its own:
    /// closing with its bytes unread would make the network throw the last word away.
    pub(super) async fn close(mut self, last_word: &[u8], patience: Duration) {
        let goodbye = async {
            self.stream.write_all(last_word).await?;
            self.stream.shutdown().await?;
            tokio::io::copy(&mut self.stream.take(RELAY_BYTES as u64), &mut tokio::io::sink()).await
        };
        // The connection ends here whatever comes of it.
        let _ = timeout(patience, goodbye).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Socket + Unpin> Connection<S> {
    /// Returns when the peer closed the connection, reading ahead what it sends meanwhile. With a
    /// full buffer it looks for the end now and then. Cancel safe.
    pub(super) async fn closed(&mut self) {
        self.closed_within(RELAY_BYTES).await
    }

    /// The same, with at most `limit` bytes ahead.
    pub(super) async fn closed_within(&mut self, limit: usize) {
        while self.ahead().len() < limit.min(RELAY_BYTES) {
            match self.fill().await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        while !self.stream.is_hung_up() {
            sleep(HANG_UP_LOOK).await;
        }
    }
}

fn cut(expected: usize, got: usize) -> WireError {
    WireError::Cut { expected, got }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::wire::OpCode;

    fn head(length: u32) -> [u8; 16] {
        Header { length, request_id: 1, response_to: 0, opcode: OpCode::Msg }.encode()
    }

    #[tokio::test]
    async fn a_header_is_seen_without_being_taken() {
        let (mut far, near) = duplex(64);
        let mut connection = Connection::new(near);
        far.write_all(&head(20)[..10]).await.unwrap();
        // Dropping the wait half way loses nothing.
        assert!(connection.header().now_or_never().is_none());
        far.write_all(&head(20)[10..]).await.unwrap();
        for _ in 0..2 {
            assert_eq!(connection.header().await.unwrap().unwrap().length, 20);
        }
        connection.consume(16);
        drop(far);
        assert!(connection.header().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_end_inside_a_header_is_a_cut() {
        let (mut far, near) = duplex(64);
        far.write_all(&head(20)[..10]).await.unwrap();
        drop(far);
        let error = Connection::new(near).header().await.unwrap_err();
        assert!(matches!(error, WireError::Cut { expected: 16, got: 10 }), "{error}");
    }

    #[tokio::test]
    async fn watching_for_the_end_keeps_what_comes_meanwhile() {
        let (mut far, near) = duplex(64);
        let mut connection = Connection::new(near);
        far.write_all(b"next").await.unwrap();
        assert!(connection.closed().now_or_never().is_none());
        assert!(!connection.is_quiet());
        drop(far);
        connection.closed().await;
        assert_eq!(connection.ahead(), b"next");
    }

    #[tokio::test]
    async fn no_more_than_the_bound_is_read_ahead() {
        let (mut far, near) = duplex(4 * RELAY_BYTES);
        far.write_all(&vec![7; 4 * RELAY_BYTES]).await.unwrap();
        let mut connection = Connection::new(near);
        assert!(connection.closed().now_or_never().is_none());
        assert_eq!(connection.ahead().len(), RELAY_BYTES);
        let mut left = 4 * RELAY_BYTES;
        while left > 0 {
            let count = connection.chunk(left).await.unwrap().len();
            assert!(count <= RELAY_BYTES);
            connection.consume(count);
            left -= count;
        }
        assert!(connection.is_quiet());
        connection.shrink();
        assert!(connection.buffer.capacity() <= KEPT_BYTES);
        drop(far);
        assert!(!connection.is_quiet());
        assert!(connection.chunk(1).await.is_err());
    }

    #[test]
    fn replaced_bytes_stand_before_the_rest() {
        let mut connection = Connection::new(());
        connection.buffer.extend_from_slice(b"packed|next");
        connection.replace(6, b"plain");
        assert_eq!(connection.ahead(), b"plain|next");
    }
}
