//! Keeps web pages from using the API through a browser on this machine.
//!
//! The API has no login yet: whoever reaches its address may use it. A browser lets any page send
//! requests there. Two rules, both about headers that a page cannot set:
//!
//! 1. Where the API listens on a loopback address, `Host` must name one (`localhost`, 127.0.0.0/8,
//!    `[::1]`), or be absent as from simple probes. That ends DNS rebinding, for reads too.
//! 2. A request that may change something and carries `Origin` must come from the API's own
//!    address: `Origin` without its scheme equals `Host`. That ends forged requests. Pages of
//!    other origins can send reads, but browsers do not let them see the answers, as the API sends
//!    no CORS headers.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// What the API listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// A loopback address: this machine alone.
    Loopback,
    /// Any other, whose names are not known here.
    Network,
}

impl Reach {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

/// A middleware that refuses what the rules above forbid.
pub(super) async fn guard(State(reach): State<Reach>, request: Request, next: Next) -> Response {
    match check(reach, request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(reach: Reach, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let host = text(header::HOST);
    if let (Reach::Loopback, Some(host)) = (reach, &host)
        && !is_loopback(host)
    {
        return Err(ApiError::ForeignHost(host.chars().take(HEADER_ECHO_CHARACTERS).collect()));
    }
    // RFC 9110 section 9.2.1: safe methods.
    let changes = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    if let (true, Some(origin)) = (changes, text(header::ORIGIN)) {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        if authority.is_none() || authority != host.as_deref() {
            let origin = origin.chars().take(HEADER_ECHO_CHARACTERS).collect();
            return Err(ApiError::ForeignOrigin(origin));
        }
    }
    Ok(())
}

/// As much of a foreign header as an error repeats.
const HEADER_ECHO_CHARACTERS: usize = 100;

/// Whether a `Host` header, with its port or without, is a loopback name or address.
fn is_loopback(host: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_is_good
            && address.parse::<IpAddr>().is_ok_and(|ip| Reach::of(ip) == Reach::Loopback);
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| Reach::of(ip) == Reach::Loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "127.0.0.1:27080";

    fn verdict(reach: Reach, method: Method, host: &str, origin: &str) -> &'static str {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        match check(reach, &method, &headers) {
            Ok(()) => "ok",
            Err(ApiError::ForeignHost(_)) => "host",
            Err(ApiError::ForeignOrigin(_)) => "origin",
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn on_loopback_the_host_must_be_this_machine() {
        for (host, expected) in [
            (OWN, "ok"),
            ("localhost:27080", "ok"),
            ("LOCALHOST", "ok"),
            ("127.9.9.9", "ok"),
            ("[::1]:27080", "ok"),
            ("[::1]", "ok"),
            ("", "ok"),
            ("evil.example", "host"),
            ("evil.example:27080", "host"),
            ("localhost.evil.example", "host"),
            ("127.0.0.1.evil.example", "host"),
            ("127.0.0.1:evil", "host"),
            ("[::2]", "host"),
            ("[::1", "host"),
            ("[::1]evil", "host"),
            ("192.168.0.1:27080", "host"),
            ("user@localhost", "host"),
        ] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(verdict(Reach::Loopback, method, host, ""), expected, "{host}");
            }
        }
        assert_eq!(verdict(Reach::Network, Method::POST, "argon.example", ""), "ok");
    }

    #[test]
    fn a_foreign_page_changes_nothing() {
        for (method, origin, expected) in [
            (Method::POST, "http://127.0.0.1:27080", "ok"),
            (Method::POST, "https://127.0.0.1:27080", "ok"),
            (Method::POST, "", "ok"),
            (Method::POST, "null", "origin"),
            (Method::POST, "http://evil.example", "origin"),
            (Method::POST, "http://localhost:3000", "origin"),
            (Method::POST, "http://127.0.0.1:27080.evil.example", "origin"),
            (Method::PUT, "http://evil.example", "origin"),
            (Method::DELETE, "http://evil.example", "origin"),
            (Method::GET, "http://evil.example", "ok"),
        ] {
            for reach in [Reach::Loopback, Reach::Network] {
                let found = verdict(reach, method.clone(), OWN, origin);
                assert_eq!(found, expected, "{method} {origin}");
            }
        }
        assert_eq!(verdict(Reach::Network, Method::POST, "", "http://evil.example"), "origin");
    }

    #[test]
    fn mapped_addresses_count_as_what_they_map() {
        for (text, reach) in [
            ("127.0.0.1", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("0.0.0.0", Reach::Network),
            ("10.0.0.1", Reach::Network),
        ] {
            assert_eq!(Reach::of(text.parse().unwrap()), reach, "{text}");
        }
    }
}
