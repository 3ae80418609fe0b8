//! Where the server is, and how names stand in a path.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The server's address: `HOST:PORT`, with `http://` before it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    authority: String,
}

/// The text names no server.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidServer {
    /// No host, or a part that has no business there.
    #[error("`{0}` is not a server's address: expected http://HOST:PORT")]
    Malformed(String),
    /// TLS and other schemes.
    #[error("`{0}` is not a server's address: only http:// is spoken here")]
    Scheme(String),
}

impl FromStr for Server {
    type Err = InvalidServer;

    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let authority = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(InvalidServer::Scheme(text.to_owned())),
            None => text,
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let malformed = || InvalidServer::Malformed(text.to_owned());
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of a bare `[::1]` is the address's own.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_name = !host.is_empty() && host.bytes().all(legal);
        let is_ipv6 = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        if !(is_name || is_ipv6) || port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(malformed());
        }
        Ok(Self { authority: authority.to_owned() })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// A text as one segment of a path: everything but RFC 3986's unreserved characters is escaped.
pub(super) fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_a_scheme() {
        for (text, url) in [
            ("127.0.0.1:27080", "http://127.0.0.1:27080"),
            ("http://127.0.0.1:27080", "http://127.0.0.1:27080"),
            ("HTTP://argon.example/", "http://argon.example"),
            ("localhost", "http://localhost"),
            ("[::1]:27080", "http://[::1]:27080"),
            ("[::1]", "http://[::1]"),
        ] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "",
            "http://",
            ":80",
            "a b",
            "host:port",
            "host:70000",
            "host:1/v1",
            "user@host",
            "::1",
            "[::1",
            "[x]:1",
        ] {
            assert!(matches!(text.parse::<Server>(), Err(InvalidServer::Malformed(_))), "{text}");
        }
        for text in ["https://host", "ftp://host"] {
            assert!(matches!(text.parse::<Server>(), Err(InvalidServer::Scheme(_))), "{text}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_segment() {
        for (text, escaped) in [
            ("pr-1_2~x", "pr-1_2~x"),
            ("a/../b", "a%2F%2E%2E%2Fb"),
            ("..", "%2E%2E"),
            ("?x#y", "%3Fx%23y"),
            ("ä %", "%C3%A4%20%25"),
        ] {
            assert_eq!(segment(text), escaped);
        }
    }
}
