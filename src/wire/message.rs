//! Whole messages, for places where they are small: hello, Argon's own commands.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::WireError;
use super::header::Header;

/// The buffer grows by at most this much ahead of the bytes that really came, so that a peer that
/// announces 48 MB and sends nothing costs nothing.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// What follows the header: exactly `header.body_bytes()` bytes.
    pub body: Bytes,
}

/// Reads one message of at most `max_bytes`, header included. `None` is a peer that closed the
/// connection between messages; closing inside one is [`WireError::Cut`]. Not cancel safe.
pub async fn read_message<R: AsyncRead + Unpin>(
    reader: &mut R,
    max_bytes: usize,
) -> Result<Option<Message>, WireError> {
    let mut head = [0; Header::BYTES];
    let mut got = 0;
    while got < head.len() {
        match reader.read(&mut head[got..]).await.map_err(WireError::io("read a message"))? {
            0 if got == 0 => return Ok(None),
            0 => return Err(WireError::Cut { expected: Header::BYTES, got }),
            count => got += count,
        }
    }
    let header = Header::parse(&head)?;
    let length = header.length as usize;
    if length > max_bytes {
        return Err(WireError::TooLarge { length, max: max_bytes });
    }
    let mut body = BytesMut::new();
    let mut limited = reader.take(header.body_bytes() as u64);
    while body.len() < header.body_bytes() {
        body.reserve((header.body_bytes() - body.len()).min(READ_AHEAD_BYTES));
        let count =
            limited.read_buf(&mut body).await.map_err(WireError::io("read a message's body"))?;
        if count == 0 {
            return Err(WireError::Cut { expected: length, got: Header::BYTES + body.len() });
        }
    }
    Ok(Some(Message { header, body: body.freeze() }))
}

#[cfg(test)]
mod tests {
    use super::super::header::OpCode;
    use super::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let length = (Header::BYTES + body.len()) as u32;
        let header = Header { length, request_id: 1, response_to: 0, opcode: OpCode::Msg };
        [&header.encode()[..], body].concat()
    }

    #[tokio::test]
    async fn messages_are_read_one_after_the_other() {
        let stream = [message(b"one"), message(b""), message(&[7; 200_000])].concat();
        let mut reader = &stream[..];
        let mut bodies = Vec::new();
        while let Some(message) = read_message(&mut reader, 1_000_000).await.unwrap() {
            bodies.push(message.body);
        }
        assert_eq!(bodies, [&b"one"[..], b"", &[7; 200_000]]);
    }

    #[tokio::test]
    async fn a_message_cut_anywhere_is_an_error() {
        let whole = message(b"body");
        for end in 1..whole.len() {
            let error = read_message(&mut &whole[..end], 1000).await.unwrap_err();
            assert!(matches!(error, WireError::Cut { got, .. } if got == end), "{end}: {error}");
        }
    }

    #[tokio::test]
    async fn the_bound_is_checked_before_the_body_is_read() {
        let whole = message(&[0; 100]);
        assert!(read_message(&mut &whole[..], 116).await.unwrap().is_some());
        let error = read_message(&mut &whole[..16], 115).await.unwrap_err();
        assert!(matches!(error, WireError::TooLarge { length: 116, max: 115 }), "{error}");
    }
}
