//! Which bucket, where, and how much patience.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest prefix, bytes: with a key of 512 it stays below S3's 1024.
const PREFIX_BYTES_MAX: usize = 500;

/// What an S3 store is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with.
    pub prefix: Prefix,
    /// URL of a server that is not Amazon's.
    pub endpoint: Option<String>,
    /// How the bucket is named in a request.
    pub addressing: Addressing,
    /// Who asks.
    pub credentials: Credentials,
    /// How long and how much.
    pub limits: S3Limits,
}

impl S3Settings {
    /// A bucket at Amazon's, or at `endpoint`, with everything else as usual.
    pub fn new(bucket: &str, endpoint: Option<&str>) -> Self {
        Self {
            bucket: bucket.to_owned(),
            prefix: Prefix::default(),
            endpoint: endpoint.map(str::to_owned),
            addressing: if endpoint.is_some() { Addressing::Path } else { Addressing::Host },
            credentials: Credentials::Found,
            limits: S3Limits::default(),
        }
    }
}

/// How the bucket is named in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// In the host: `https://BUCKET.s3.REGION.amazonaws.com/KEY`.
    Host,
    /// In the path: `https://HOST/BUCKET/KEY`; what most other servers want.
    Path,
}

/// Where credentials come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Where the SDK looks: environment, profiles, web identity, container and instance roles.
    Found,
    /// These.
    Given {
        /// The key's id.
        id: String,
        /// The key.
        secret: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found => f.write_str("Found"),
            Self::Given { id, .. } => write!(f, "Given({id})"),
        }
    }
}

/// How long a request may take, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct S3Limits {
    /// Requests at a time; the others wait.
    pub requests: usize,
    /// How long connecting may take.
    pub connect: Duration,
    /// How long one try may take, beside [`Self::per_mib`].
    pub attempt: Duration,
    /// After this no further try begins, beside [`Self::per_mib`].
    pub deadline: Duration,
    /// So much longer for each MiB of body: 1 MiB/s is slow, less is broken.
    pub per_mib: Duration,
}

impl Default for S3Limits {
    fn default() -> Self {
        Self {
            requests: 64,
            connect: Duration::from_secs(4),
            // Below the 30 s that a command waits for its branch, so that its client gets the cause.
            attempt: Duration::from_secs(10),
            deadline: Duration::from_secs(20),
            per_mib: Duration::from_secs(1),
        }
    }
}

impl S3Limits {
    /// The time for `bytes` of body.
    pub(super) fn for_body(&self, bytes: u64) -> Duration {
        self.per_mib.mul_f64(bytes as f64 / f64::from(1 << 20))
    }
}

/// What all keys of a store begin with: empty, or ending with a slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let parts = text.strip_suffix('/').unwrap_or(text);
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        if parts.is_empty() {
            return Ok(Self::default());
        }
        if parts.len() >= PREFIX_BYTES_MAX {
            return Err("it is longer than 500 characters");
        }
        if !parts.bytes().all(legal) {
            return Err("only letters, digits and `. _ / -` are allowed");
        }
        if parts.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
            return Err("a part between slashes is empty or starts with a dot");
        }
        Ok(Self(format!("{parts}/")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_with_one_slash() {
        for (text, wanted) in [("", ""), ("/", ""), ("a", "a/"), ("Team/b.c_d-9/", "Team/b.c_d-9/")]
        {
            assert_eq!(text.parse::<Prefix>().unwrap().as_str(), wanted);
        }
        let long = "x".repeat(500);
        for text in ["//", "/a", "a//b", "..", "a/../b", "a b", "ä", "a/.tmp", &*long] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let given = Credentials::Given { id: "AK".into(), secret: "hidden".into() };
        assert_eq!(format!("{given:?}"), "Given(AK)");
    }
}
