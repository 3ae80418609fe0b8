//! A byte stream with what was read ahead of need, client's and mongod's side alike.

use std::future::pending;
use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::base::limits::RELAY_BYTES;
use crate::wire::{Header, WireError};

/// What a connection that waits for its next message keeps in memory.
const IDLE_BYTES: usize = 2 * 1024;

/// A connection. Reading goes into a buffer of at most [`RELAY_BYTES`], from which the owner takes
/// what it handled; so any wait for bytes can be dropped without losing one.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    ahead: BytesMut,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, ahead: BytesMut::new() }
    }

    /// What was read and not yet handled.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Marks the first `count` bytes as handled.
    pub(super) fn consume(&mut self, count: usize) {
        self.ahead.advance(count);
    }

    /// Replaces the first `count` bytes, as though these had been read.
    pub(super) fn replace(&mut self, count: usize, with: &[u8]) {
        let mut ahead = BytesMut::with_capacity(with.len() + self.ahead.len() - count);
        ahead.extend_from_slice(with);
        ahead.extend_from_slice(&self.ahead[count..]);
        self.ahead = ahead;
    }

    /// Gives the memory back that a large message took.
    pub(super) fn shrink(&mut self) {
        if self.ahead.capacity() > IDLE_BYTES && self.ahead.len() < IDLE_BYTES {
            self.ahead = BytesMut::from(&self.ahead[..]);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads at least one byte more; 0 is the end of the stream. Must not be called with
    /// [`RELAY_BYTES`] ahead. Cancel safe.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        // Doubling: small commands stay small, and a large message soon moves in whole chunks.
        let room = self.ahead.len().max(IDLE_BYTES);
        let room = room.min(RELAY_BYTES.saturating_sub(self.ahead.len()).max(1));
        self.ahead.reserve(room);
        let mut limited = (&mut self.ahead).limit(room);
        self.stream.read_buf(&mut limited).await
    }

    /// Like [`Self::fill`] on an empty buffer, with as much room as a chunk of a message has.
    async fn fill_chunk(&mut self) -> io::Result<usize> {
        self.ahead.reserve(RELAY_BYTES);
        let mut limited = (&mut self.ahead).limit(RELAY_BYTES);
        self.stream.read_buf(&mut limited).await
    }

    /// Waits until a whole header is ahead and reads it without taking it; `None` is the end of
    /// the stream between messages. Cancel safe.
    pub(super) async fn header(&mut self) -> Result<Option<Header>, WireError> {
        loop {
            if let Some(head) = self.ahead.first_chunk() {
                return Header::parse(head).map(Some);
            }
            match self.fill().await.map_err(WireError::io("read a message"))? {
                0 if self.ahead.is_empty() => return Ok(None),
                0 => return Err(cut(Header::BYTES, self.ahead.len())),
                _ => {}
            }
        }
    }

    /// Waits until `count` bytes are ahead, at most [`RELAY_BYTES`]. Cancel safe.
    pub(super) async fn fill_to(&mut self, count: usize) -> Result<(), WireError> {
        while self.ahead.len() < count.min(RELAY_BYTES) {
            if self.fill().await.map_err(WireError::io("read a message"))? == 0 {
                return Err(cut(count, self.ahead.len()));
            }
        }
        Ok(())
    }

    /// Takes the next bytes of a message of which `left` are still to come, at most as many. The
    /// caller handles them all. Not cancel safe.
    pub(super) async fn chunk(&mut self, left: usize) -> Result<BytesMut, WireError> {
        if self.ahead.is_empty() {
            let count = self.fill_chunk().await;
            if count.map_err(WireError::io("read a message's body"))? == 0 {
                return Err(cut(left, 0));
            }
        }
        Ok(self.ahead.split_to(left.min(self.ahead.len())))
    }

    /// Returns when the peer closed the connection, reading ahead what it sends meanwhile. With a
    /// full buffer the end cannot be seen, and this never returns. Cancel safe.
    pub(super) async fn closed(&mut self) {
        self.closed_within(RELAY_BYTES).await
    }

    /// The same, with at most `limit` bytes ahead.
    pub(super) async fn closed_within(&mut self, limit: usize) {
        while self.ahead.len() < limit.min(RELAY_BYTES) {
            match self.fill().await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        pending().await
    }

    /// Whether the connection is open and silent right now, as one at rest must be.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.ahead.is_empty() && self.fill().now_or_never().is_none()
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
            let chunk = connection.chunk(left).await.unwrap();
            assert!(chunk.len() <= RELAY_BYTES);
            left -= chunk.len();
        }
        assert!(connection.is_quiet());
        connection.shrink();
        assert!(connection.ahead.capacity() <= IDLE_BYTES);
        drop(far);
        assert!(!connection.is_quiet());
        assert!(connection.chunk(1).await.is_err());
    }

    #[test]
    fn replaced_bytes_stand_before_the_rest() {
        let mut connection = Connection::new(());
        connection.ahead.extend_from_slice(b"packed|next");
        connection.replace(6, b"plain");
        assert_eq!(connection.ahead(), b"plain|next");
    }
}
