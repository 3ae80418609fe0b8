//! A server that takes the conditions of writes and ignores them, for tests.
//!
//! garage is the real one. To build it takes eleven minutes of a processor, too much for each run of
//! `cargo verify`; so tests have it where `ARGON_GARAGE=full` asks for it, and else moto behind a
//! proxy that hides the conditions, which must pass the very same tests.

use anyhow::Result;

use crate::buckets::Buckets;
use crate::tamper::Tamper;

/// The variable that asks for garage.
const VARIABLE: &str = "ARGON_GARAGE";

/// The server. It ends with this.
#[derive(Debug)]
pub struct Careless {
    // Before the server: it is dropped first.
    between: Option<Tamper>,
    server: Buckets,
}

impl Careless {
    /// garage where it is asked for, else its stand-in; `None`, said aloud, where that is not
    /// installed.
    pub fn start(what_for: &str) -> Result<Option<Self>> {
        if std::env::var(VARIABLE).is_ok_and(|value| value == "full") {
            return Ok(Some(Self { between: None, server: Buckets::garage()? }));
        }
        let Some(server) = Buckets::moto(what_for)? else { return Ok(None) };
        let between = Tamper::before(&server.address)?;
        between.hide_conditions();
        Ok(Some(Self { between: Some(between), server }))
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        self.between.as_ref().map_or_else(|| self.server.endpoint(), Tamper::endpoint)
    }
}
