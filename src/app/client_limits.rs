//! The settings of what clients may take.

use std::ops::RangeInclusive;
use std::time::Duration;

use argon_admin::types::IdleTimeout;

use super::config::{ConfigError, Given, Layers};
use crate::base::limits::{ClientLimits, MESSAGE_BYTES_MAX, RELAY_BYTES};

/// A hello is some hundred bytes; this leaves room for its authentication.
const FIRST_MESSAGE_BYTES: RangeInclusive<usize> = 1024..=RELAY_BYTES;

/// The largest document, and a command around it, must fit: `maxBsonObjectSize` and 16 KiB.
const MESSAGE_BYTES: RangeInclusive<usize> = 16 * 1024 * 1024 + 16 * 1024..=MESSAGE_BYTES_MAX;

pub(super) fn client_limits(layers: &Layers<'_>) -> Result<ClientLimits, ConfigError> {
    let default = ClientLimits::default();
    let count = |found: Option<Given>, default: usize| match found {
        Some(given) => given.parse(
            |text| text.parse().ok().filter(|count| *count > 0),
            "a number of connections, at least 1",
        ),
        None => Ok(default),
    };
    let time = |found: Option<Given>, default: Duration| match found {
        Some(given) => given.parse(
            |text| text.parse::<IdleTimeout>().ok().and_then(|time| time.duration()),
            "a time, as in 30s",
        ),
        None => Ok(default),
    };
    let first = layers.pick("first_message_bytes", "ARGON_FIRST_MESSAGE_BYTES", |values| {
        &values.first_message_bytes
    });
    let message =
        layers.pick("message_bytes", "ARGON_MESSAGE_BYTES", |values| &values.message_bytes);
    Ok(ClientLimits {
        connections: count(
            layers.pick("max_connections", "ARGON_MAX_CONNECTIONS", |v| &v.max_connections),
            default.connections,
        )?,
        branch_connections: count(
            layers.pick("max_branch_connections", "ARGON_MAX_BRANCH_CONNECTIONS", |values| {
                &values.max_branch_connections
            }),
            default.branch_connections,
        )?,
        first_message_wait: time(
            layers.pick("first_message_wait", "ARGON_FIRST_MESSAGE_WAIT", |values| {
                &values.first_message_wait
            }),
            default.first_message_wait,
        )?,
        hello_wait: time(
            layers.pick("hello_wait", "ARGON_HELLO_WAIT", |values| &values.hello_wait),
            default.hello_wait,
        )?,
        first_message_bytes: match first {
            Some(given) => given.parse(
                |text| text.parse().ok().filter(|bytes| FIRST_MESSAGE_BYTES.contains(bytes)),
                "a number of bytes, 1024 to 65536",
            )?,
            None => default.first_message_bytes,
        },
        message_bytes: match message {
            Some(given) => given.parse(
                |text| text.parse().ok().filter(|bytes| MESSAGE_BYTES.contains(bytes)),
                "a number of bytes, 16793600 to 48000000",
            )?,
            None => default.message_bytes,
        },
    })
}
