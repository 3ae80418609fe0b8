//! Settings of `argon serve`: flags, then the environment, then a TOML file, then defaults.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use argon_admin::types::{IdleTimeout, KeepWarm, SnapshotEvery};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use super::client_limits::client_limits;
use super::compute::{ComputeSettings, compute};
use super::garbage::garbage;
use super::mounts::mounts;
use super::settings::{Flags, Values, read_file};
use super::store_config;
use crate::base::limits::{
    ClientLimits, Garbage, IDLE_TIMEOUT, Mounts, PARKED_MONGODS, PARKED_MONGODS_MAX,
    SNAPSHOT_INTERVAL,
};
use crate::branch::Writers;
use crate::store::{Key, S3Settings};

/// Everything that `argon serve` can be told, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where drivers connect; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the admin API listens; port 0 picks a free one.
    pub admin_listen: SocketAddr,
    /// The server's own files and its store.
    pub data_dir: PathBuf,
    /// The store, where it is another directory than the one in the data directory.
    pub store_dir: Option<PathBuf>,
    /// The idle time-out of branches that have none of their own.
    pub idle_timeout: IdleTimeout,
    /// How often a version is made of running branches that have no interval of their own.
    pub snapshot_every: SnapshotEvery,
    /// How long an idle branch's mongod stands still before it is suspended.
    pub keep_warm: KeepWarm,
    /// How volumes become dbpaths, and what they may take of this machine's disk.
    pub mounts: Mounts,
    /// How many mongods are kept started ahead of wakes.
    pub parked: usize,
    /// What clients may take.
    pub limits: ClientLimits,
    /// How garbage is collected.
    pub garbage: Garbage,
    /// How branches' mongods are run.
    pub compute: ComputeSettings,
    /// The mongod to run and the setting that names it; else one is searched for.
    pub mongod: Option<(PathBuf, String)>,
    /// The bucket that is the store; without one it is a directory in the data directory.
    pub bucket: Option<S3Settings>,
    /// Whether other servers may use the store too.
    pub writers: Writers,
    /// Key in the store of the archive that new projects start from.
    pub base_archive: Key,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// How it is written.
    pub log_format: LogFormat,
    /// How the server says that it listens.
    pub ready: Ready,
    /// Whether a running server is replaced.
    pub start: Start,
}

/// Whether another server may be running on the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// That is an error.
    Alone,
    /// It is told to end, and its clients come here.
    TakeOver,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the server says that it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Lines for people, on stderr.
    Text,
    /// One line of JSON on stdout: `{"listen":"…","admin":"…","pid":…}`.
    Json,
}

fn default_base_archive() -> Result<Key, ConfigError> {
    Ok("base/dump.archive".parse().expect("a test resolves the defaults"))
}

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A value cannot be read as what it should be.
    #[error("{setting} is `{value}`: expected {expected}")]
    Value {
        /// The flag, variable or key that it came from.
        setting: String,
        /// The value.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// The file cannot be read.
    #[error("read the configuration file `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file is no TOML, or holds a key or a type that is not known.
    #[error("configuration file `{path}`, line {line}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The platform names no data folder: there is no home directory.
    #[error("there is no data folder: no home directory is set")]
    NoDataFolder,
}

impl ConfigError {
    /// The next step for whoever reads the error.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Value { .. } => "`argon serve --help` shows every setting with its default",
            Self::Read { .. } => "correct --config or ARGON_CONFIG, or make the file readable",
            Self::File { .. } => "`argon serve --help` names the keys that the file may have",
            Self::NoDataFolder => "give one with --data-dir",
        }
    }
}

impl Config {
    /// What an operator should know about these settings, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let open = |what: &str, address: SocketAddr| {
            let text = format!(
                "{what} listens on {address}: whoever reaches it has every branch, there is no login yet"
            );
            (!address.ip().is_loopback()).then_some(text)
        };
        let all = [open("the proxy", self.listen), open("the admin API", self.admin_listen)];
        all.into_iter().flatten().collect()
    }
}

/// Reads the environment of this process and the configuration file, and decides.
pub fn load(flags: &Flags) -> Result<Config, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let platform = directories::ProjectDirs::from("", "", "argon");
    let in_platform_folder = || {
        let path = platform.as_ref()?.config_dir().join("argon.toml");
        path.exists().then_some(path)
    };
    let named = flags.config.clone().or_else(|| set(&variable, "ARGON_CONFIG"));
    let file = match named.map(PathBuf::from).or_else(in_platform_folder) {
        Some(path) => read_file(&path)?,
        None => Values::default(),
    };
    let data_folder = platform.as_ref().map(|dirs| dirs.data_dir().to_owned());
    resolve(flags, &variable, &file, data_folder)
}

/// Decides what holds. Pure: the environment is a function, the file is read, `data_folder` is
/// the platform's.
pub fn resolve(
    flags: &Flags,
    variable: &dyn Fn(&str) -> Option<String>,
    file: &Values,
    data_folder: Option<PathBuf>,
) -> Result<Config, ConfigError> {
    let layers = Layers { flags: &flags.values, variable, file };
    let address = |found: Option<Given>, default: SocketAddr| match found {
        Some(given) => given.parse(|text| text.parse().ok(), "IP:PORT, as in 127.0.0.1:27017"),
        None => Ok(default),
    };
    let data_dir = layers.pick("data_dir", "ARGON_DATA_DIR", |values| &values.data_dir);
    let store_dir = layers.pick("store_dir", "ARGON_STORE_DIR", |values| &values.store_dir);
    let mongod = layers.pick("mongod", "ARGON_MONGOD", |values| &values.mongod);
    let base_archive =
        layers.pick("base_archive", "ARGON_BASE_SNAPSHOT_S3_PATH", |values| &values.base_archive);
    let log = layers.pick("log", "RUST_LOG", |values| &values.log);
    let log_format = layers.pick("log_format", "ARGON_LOG_FORMAT", |values| &values.log_format);
    let (bucket, writers) = (store_config::bucket(&layers)?, store_config::writers(&layers)?);
    Ok(Config {
        listen: address(
            layers.pick("listen", "ARGON_LISTEN", |values| &values.listen),
            SocketAddr::from(([127, 0, 0, 1], 27017)),
        )?,
        admin_listen: address(
            layers.pick("admin_listen", "ARGON_ADMIN_LISTEN", |values| &values.admin_listen),
            SocketAddr::from(([127, 0, 0, 1], 27080)),
        )?,
        data_dir: data_dir
            .map(|given| given.value.into())
            .or(data_folder)
            .ok_or(ConfigError::NoDataFolder)?,
        store_dir: store_dir.map(|given| given.value.into()),
        idle_timeout: idle_timeout(&layers)?,
        snapshot_every: snapshot_every(&layers)?,
        keep_warm: keep_warm(&layers)?,
        mounts: mounts(&layers)?,
        parked: parked(&layers)?,
        limits: client_limits(&layers)?,
        garbage: garbage(&layers, bucket.as_ref(), writers)?,
        compute: compute(&layers)?,
        mongod: mongod.map(|given| (given.value.into(), given.setting)),
        bucket,
        writers,
        base_archive: base_archive.map_or_else(default_base_archive, |given| {
            given.parse(|text| text.parse().ok(), "a key of the store, as in base/dump.archive")
        })?,
        log: log.map_or(Ok("info".to_owned()), |given| {
            let known = |text: &str| EnvFilter::try_new(text).ok().map(|_| text.to_owned());
            given.parse(known, "a log filter, as in info or warn,argon::proxy=debug")
        })?,
        log_format: log_format
            .map_or(Ok(LogFormat::Text), |given| given.parse(LogFormat::named, "text or json"))?,
        ready: if flags.ready_json { Ready::Json } else { Ready::Text },
        start: if flags.take_over { Start::TakeOver } else { Start::Alone },
    })
}

/// The first Argon's variables come after the one of this Argon: they say the same less exactly.
fn idle_timeout(layers: &Layers<'_>) -> Result<IdleTimeout, ConfigError> {
    let read = |given: Given| given.parse(|text| text.parse().ok(), "a time, as in 30s, or never");
    if let Some(value) = layers.flags.idle_timeout.clone() {
        return read(Given { value, setting: "--idle-timeout".to_owned() });
    }
    if let Some(given) = layers.variable("ARGON_IDLE_TIMEOUT") {
        return read(given);
    }
    if let Some(given) = layers.variable("ARGON_AUTO_SUSPEND_ENABLED") {
        let enabled = given.parse(|text| text.to_ascii_lowercase().parse().ok(), "true or false");
        if !enabled? {
            return Ok(IdleTimeout::Never);
        }
    }
    if let Some(given) = layers.variable("DASHBOARD_AUTO_SUSPEND_IDLE_MINUTES") {
        let minutes = |text: &str| format!("{text}m").parse().ok();
        return given.parse(minutes, "a whole number of minutes, at least 1");
    }
    match layers.in_file("idle_timeout", &layers.file.idle_timeout) {
        Some(given) => read(given),
        None => Ok(Some(IDLE_TIMEOUT).into()),
    }
}

fn snapshot_every(layers: &Layers<'_>) -> Result<SnapshotEvery, ConfigError> {
    match layers.pick("snapshot_every", "ARGON_SNAPSHOT_EVERY", |values| &values.snapshot_every) {
        Some(given) => given.parse(|text| text.parse().ok(), "a time of at least 1s, or off"),
        None => Ok(Some(SNAPSHOT_INTERVAL).into()),
    }
}

fn keep_warm(layers: &Layers<'_>) -> Result<KeepWarm, ConfigError> {
    match layers.pick("keep_warm", "ARGON_KEEP_WARM", |values| &values.keep_warm) {
        Some(given) => given.parse(|text| text.parse().ok(), "a time, as in 10m, or off"),
        None => Ok(KeepWarm::Off),
    }
}

fn parked(layers: &Layers<'_>) -> Result<usize, ConfigError> {
    let number = |text: &str| text.parse().ok().filter(|number| *number <= PARKED_MONGODS_MAX);
    match layers.pick("parked", "ARGON_PARKED", |values| &values.parked) {
        Some(given) => given.parse(number, "a number of mongods from 0 to 64"),
        None => Ok(PARKED_MONGODS),
    }
}

impl LogFormat {
    fn named(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A value, and the flag, variable or key that gave it.
pub(super) struct Given {
    value: String,
    setting: String,
}

impl Given {
    pub(super) fn into_value(self) -> String {
        self.value
    }

    pub(super) fn parse<T>(
        self,
        read: impl Fn(&str) -> Option<T>,
        expected: &'static str,
    ) -> Result<T, ConfigError> {
        read(&self.value).ok_or(ConfigError::Value {
            setting: self.setting,
            value: self.value,
            expected,
        })
    }
}

/// The places that a setting may come from.
pub(super) struct Layers<'a> {
    flags: &'a Values,
    variable: &'a dyn Fn(&str) -> Option<String>,
    file: &'a Values,
}

impl Layers<'_> {
    pub(super) fn pick(
        &self,
        key: &str,
        variable: &str,
        of: impl Fn(&Values) -> &Option<String>,
    ) -> Option<Given> {
        let flag = || format!("--{}", key.replace('_', "-"));
        of(self.flags)
            .clone()
            .map(|value| Given { value, setting: flag() })
            .or_else(|| self.variable(variable))
            .or_else(|| self.in_file(key, of(self.file)))
    }

    pub(super) fn variable(&self, name: &str) -> Option<Given> {
        set(self.variable, name).map(|value| Given { value, setting: name.to_owned() })
    }

    fn in_file(&self, key: &str, value: &Option<String>) -> Option<Given> {
        let setting = || format!("`{key}` in the configuration file");
        value.clone().map(|value| Given { value, setting: setting() })
    }
}

/// A variable's value; an empty one counts as not set, so that a `.env` file can take one back.
fn set(variable: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests;
