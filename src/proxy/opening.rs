//! A connection's first message: the only point where anybody at all may send anything.

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::connection::Connection;
use super::error::ProxyError;
use crate::wire::{Header, WireError};

/// How many of the first bytes are shown in the log.
const SEEN_BYTES: usize = 16;

/// Another protocol, known by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A browser, a health check, or an admin client that took the wrong port.
    Http,
    /// A driver with `tls=true`.
    Tls,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
        })
    }
}

impl Foreign {
    /// What its speaker is answered before the connection is closed; nothing where no answer would
    /// be understood.
    pub(super) fn farewell(self) -> &'static [u8] {
        match self {
            Self::Http => {
                b"HTTP/1.1 400 Bad Request\r\n\
                  Connection: close\r\n\
                  Content-Type: text/plain\r\n\
                  Content-Length: 82\r\n\r\n\
                  This port speaks MongoDB's wire protocol, not HTTP: connect with a MongoDB driver\n"
            }
            Self::Tls => b"",
        }
    }

    /// Known by their first bytes, which no message of a legal length has.
    fn recognise(bytes: &[u8]) -> Option<Self> {
        const METHODS: [&[u8; 4]; 10] = [
            b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC",
            b"PRI ", // HTTP/2's preface, RFC 9113 section 3.4
        ];
        if METHODS.iter().any(|method| bytes.starts_with(*method)) {
            return Some(Self::Http);
        }
        // A handshake record of TLS 1.0 to 1.3 with a ClientHello: RFC 8446 sections 5.1 and 4.
        match bytes {
            [0x16, 0x03, 1..=4, _, _, 0x01, ..] => Some(Self::Tls),
            _ => None,
        }
    }
}

/// Waits for the header of a message from a client that has not said hello yet, without taking it.
/// `None` is a client that went away without a word. Cancel safe.
pub(super) async fn first_header<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Connection<S>,
    wait: Duration,
    bytes_max: usize,
) -> Result<Option<Header>, ProxyError> {
    let late = |_| ProxyError::Late { waited: wait };
    timeout(wait, whole_message(client, bytes_max)).await.map_err(late)?
}

async fn whole_message<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Connection<S>,
    bytes_max: usize,
) -> Result<Option<Header>, ProxyError> {
    loop {
        if let Some(protocol) = Foreign::recognise(client.ahead()) {
            return Err(ProxyError::Foreign { protocol });
        }
        if client.ahead().len() >= Header::BYTES {
            break;
        }
        match client.fill().await {
            Ok(0) if client.ahead().is_empty() => return Ok(None),
            Ok(0) => {
                let got = client.ahead().len();
                return Err(no_message(client, WireError::Cut { expected: Header::BYTES, got }));
            }
            Ok(_) => {}
            Err(error) => {
                return Err(ProxyError::client(WireError::io("read the first message")(error)));
            }
        }
    }
    let header = client.header().await.map_err(|source| no_message(client, source))?;
    let Some(header) = header else { return Ok(None) };
    let length = header.length as usize;
    if length > bytes_max {
        let source = WireError::TooLarge { length, max: bytes_max };
        return Err(no_message(client, source));
    }
    // The rest must come within the same time.
    client.fill_to(length).await.map_err(|source| no_message(client, source))?;
    Ok(Some(header))
}

fn no_message<S>(client: &Connection<S>, source: WireError) -> ProxyError {
    let seen = &client.ahead()[..client.ahead().len().min(SEEN_BYTES)];
    ProxyError::NoMessage { seen: seen.escape_ascii().to_string(), source }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::base::limits::{FIRST_MESSAGE_BYTES_MAX, FIRST_MESSAGE_WAIT};
    use crate::wire::OpCode;

    async fn first(client: &mut Connection<DuplexStream>) -> Result<Option<Header>, ProxyError> {
        first_header(client, FIRST_MESSAGE_WAIT, FIRST_MESSAGE_BYTES_MAX).await
    }

    async fn open(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
        let (mut far, near) = duplex(1 << 20);
        far.write_all(bytes).await.unwrap();
        drop(far);
        first(&mut Connection::new(near)).await
    }

    fn message(length: i32) -> Vec<u8> {
        let header = Header { length: 16, request_id: 1, response_to: 0, opcode: OpCode::Msg };
        [&length.to_le_bytes()[..], &header.encode()[4..]].concat()
    }

    #[tokio::test]
    async fn other_protocols_are_known_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], Foreign::Http),
            (b"GET /", Foreign::Http),
            (b"POST /v1 HTTP/1.0\r\n", Foreign::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Foreign::Http),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Foreign::Tls),
            (b"\x16\x03\x03\x00\xf0\x01\x00\x00\xec\x03\x03", Foreign::Tls),
        ] {
            match open(bytes).await {
                Err(ProxyError::Foreign { protocol }) => assert_eq!(protocol, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn wrong_bytes_are_shown() {
        let too_large = message(65_537);
        for (bytes, seen) in [
            (&b"\xff\xfe\xfd\xfc0123456789ab"[..], r"\xff\xfe\xfd\xfc0123456789ab"),
            (b"hello", "hello"),
            (&message(0), r"\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00"),
            (
                &message(i32::MAX),
                r"\xff\xff\xff\x7f\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00",
            ),
            (&too_large, r"\x01\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00"),
            (&message(100), r"d\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00"),
        ] {
            match open(bytes).await {
                Err(ProxyError::NoMessage { seen: found, .. }) => assert_eq!(found, seen),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_client_may_come_and_go_without_a_word() {
        assert!(open(b"").await.unwrap().is_none());
        assert_eq!(open(&message(16)).await.unwrap().unwrap().length, 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_finish_its_hello_is_late() {
        for sent in [&b""[..], b"\x64\0", &message(100)[..15], &message(100)] {
            let (mut far, near) = duplex(1024);
            far.write_all(sent).await.unwrap();
            let outcome = first(&mut Connection::new(near)).await;
            assert!(matches!(outcome, Err(ProxyError::Late { .. })), "{sent:?}: {outcome:?}");
        }
    }

    #[test]
    fn the_farewell_says_its_own_length() {
        let text = std::str::from_utf8(Foreign::Http.farewell()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
