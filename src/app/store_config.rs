//! The settings of the store: a directory, or a bucket.

use std::time::Duration;

use argon_admin::types::IdleTimeout;

use super::config::{ConfigError, Given, Layers};
use crate::base::limits::LEASE_TTL;
use crate::branch::Writers;
use crate::store::{Addressing, S3Settings};

/// Where the store is: `None` is a directory in the data directory.
pub(super) fn bucket(layers: &Layers<'_>) -> Result<Option<S3Settings>, ConfigError> {
    let bucket = layers.pick("s3_bucket", "S3_BUCKET", |values| &values.s3_bucket);
    let Some(bucket) = bucket else { return Ok(None) };
    let bucket = bucket.parse(bucket_name, "a bucket's name: 3 to 63 of a-z, 0-9, `.`, `-`")?;
    let endpoint = layers
        .pick("s3_endpoint", "ARGON_S3_ENDPOINT", |values| &values.s3_endpoint)
        // As Amazon's own tools call it.
        .or_else(|| layers.variable("AWS_ENDPOINT_URL_S3"))
        .or_else(|| layers.variable("AWS_ENDPOINT_URL"));
    let endpoint =
        endpoint.map(|given| given.parse(url, "a URL, as in http://127.0.0.1:9000")).transpose()?;
    let usual = S3Settings::new(&bucket, endpoint.as_deref());
    let prefix = layers.pick("s3_prefix", "ARGON_S3_PREFIX", |values| &values.s3_prefix);
    let addressing =
        layers.pick("s3_addressing", "ARGON_S3_ADDRESSING", |values| &values.s3_addressing);
    Ok(Some(S3Settings {
        prefix: prefix.map_or(Ok(usual.prefix), |given: Given| {
            given.parse(
                |text| text.parse().ok(),
                "names with slashes between them, as in team/argon: letters, digits, `.`, `_`, `-`",
            )
        })?,
        addressing: addressing.map_or(Ok(usual.addressing), |given| {
            let automatic = S3Settings::new(&bucket, endpoint.as_deref()).addressing;
            given.parse(|text| addressed(text, automatic), "auto, path or host")
        })?,
        endpoint,
        ..S3Settings::new(&bucket, None)
    }))
}

/// Whether other servers must be expected at the store.
pub(super) fn writers(layers: &Layers<'_>) -> Result<Writers, ConfigError> {
    let given = layers.pick("single_writer", "ARGON_SINGLE_WRITER", |values| &values.single_writer);
    let single = given.map_or(Ok(false), |given| {
        given.parse(|text| text.to_ascii_lowercase().parse().ok(), "true or false")
    })?;
    let lease_ttl = lease_ttl(layers)?;
    Ok(if single { Writers::One } else { Writers::Several { lease_ttl } })
}

/// Not below a second: a lease is renewed four times while it lasts.
fn lease_ttl(layers: &Layers<'_>) -> Result<Duration, ConfigError> {
    let enough = |text: &str| {
        let time = text.parse::<IdleTimeout>().ok()?.duration()?;
        (time >= Duration::from_secs(1)).then_some(time)
    };
    match layers.pick("lease_ttl", "ARGON_LEASE_TTL", |values| &values.lease_ttl) {
        Some(given) => given.parse(enough, "a time of at least 1s, as in 10m"),
        None => Ok(LEASE_TTL),
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>; the server has
/// the last word.
fn bucket_name(text: &str) -> Option<String> {
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let is_name = (3..=63).contains(&text.len()) && text.bytes().all(legal);
    (is_name && !text.starts_with(['.', '-'])).then(|| text.to_owned())
}

fn url(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"/@?#".contains(&byte);
    (!host.is_empty() && host.bytes().all(legal)).then(|| text.to_owned())
}

fn addressed(text: &str, automatic: Addressing) -> Option<Addressing> {
    match text {
        "auto" => Some(automatic),
        "path" => Some(Addressing::Path),
        "host" => Some(Addressing::Host),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_urls_are_checked() {
        for name in ["abc", "argon-prod.example", &"a".repeat(63)] {
            assert!(bucket_name(name).is_some(), "{name}");
        }
        for name in ["ab", "Upper", "a/b", "s3://abc", "-abc", ".abc", &"a".repeat(64), "a b c"] {
            assert!(bucket_name(name).is_none(), "{name}");
        }
        assert_eq!(url("http://127.0.0.1:9000/").as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(url("https://[::1]:1").as_deref(), Some("https://[::1]:1"));
        for text in
            ["", "127.0.0.1:9000", "http://", "ftp://x", "http://a/b", "http://u@h", "http://a b"]
        {
            assert!(url(text).is_none(), "{text}");
        }
    }
}
