//! The settings of `argon serve` as text: its flags, their help, and the configuration file.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::config::ConfigError;

/// What `argon serve` takes on its command line.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Flags {
    /// The settings.
    #[command(flatten)]
    pub values: Values,
    /// TOML file with settings [default: argon.toml in the platform's configuration folder, on
    /// Linux ~/.config/argon/argon.toml, if it is there] [env: ARGON_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// When listening, print one line of JSON on stdout: {"listen":…,"admin":…,"pid":…}
    #[arg(long)]
    pub ready_json: bool,
    /// Replace the server that runs on the data directory: listen beside it, tell it to end, wait
    /// for its data. New clients wait meanwhile, none is refused
    #[arg(long)]
    pub take_over: bool,
}

/// Settings as text, from the flags or from the file: what they mean is decided in one place,
/// whichever they came from. A key in the file is the flag's name with `_`.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Values {
    /// Where drivers connect; port 0 picks a free one [default: 127.0.0.1:27017] [env:
    /// ARGON_LISTEN] [file: listen]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Where the admin API listens; port 0 picks a free one [default: 127.0.0.1:27080] [env:
    /// ARGON_ADMIN_LISTEN] [file: admin_listen]
    #[arg(long, value_name = "IP:PORT")]
    pub admin_listen: Option<String>,
    /// Folder of the server's own files and its store [default: the platform's data folder, on
    /// Linux ~/.local/share/argon] [env: ARGON_DATA_DIR] [file: data_dir]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Folder of the store, which several servers may share, each with a data folder of its own
    /// [default: `store` in the data folder] [env: ARGON_STORE_DIR] [file: store_dir]
    #[arg(long, value_name = "DIR")]
    pub store_dir: Option<String>,
    /// How long this server's branches stay its own when it can no longer say that it lives. Other
    /// servers wait that long before they take them over; a server that cannot reach the store for
    /// nine tenths of it answers no commands until it can [default: 10m] [env: ARGON_LEASE_TTL]
    /// [file: lease_ttl]
    #[arg(long, value_name = "TIME")]
    pub lease_ttl: Option<String>,
    /// Suspend a branch after this time without work, or `never`; branches may have their own
    /// [default: 5m] [env: ARGON_IDLE_TIMEOUT] [file: idle_timeout]
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<String>,
    /// Make a version of a running branch this often, where something changed, or `off`; branches
    /// may have their own [default: 1m] [env: ARGON_SNAPSHOT_EVERY] [file: snapshot_every]
    #[arg(long, value_name = "TIME")]
    pub snapshot_every: Option<String>,
    /// Let an idle branch's mongod stand still for this time before the branch is suspended, or `off`:
    /// it takes its memory and no CPU, and goes on with the first command in a millisecond. Branches
    /// may have their own [default: off] [env: ARGON_KEEP_WARM] [file: keep_warm]
    #[arg(long, value_name = "TIME")]
    pub keep_warm: Option<String>,
    /// Keep this many mongods started ahead, so that a branch wakes in a tenth of a second; each takes
    /// some 60 MB. 0 starts every mongod when it is needed. They need lazy mounts [default: 1] [env:
    /// ARGON_PARKED] [file: parked]
    #[arg(long, value_name = "N")]
    pub parked: Option<String>,
    /// How a volume becomes mongod's directory: lazy (through FUSE: a wake fetches only what is
    /// asked for), eager (all of it is fetched first), or auto (lazy where FUSE works) [default:
    /// auto] [env: ARGON_MOUNT] [file: mount]
    #[arg(long, value_name = "HOW", help_heading = "Local disk")]
    pub mount: Option<String>,
    /// Most room that blocks fetched from the store take on this disk, for all branches: bytes, or
    /// as in 500MB, 4GiB [default: 4GiB] [env: ARGON_CACHE_BYTES] [file: cache_bytes]
    #[arg(long, value_name = "SIZE", help_heading = "Local disk")]
    pub cache_bytes: Option<String>,
    /// Fetch the rest of a branch behind its wake where it is not larger than this; 0 is never
    /// [default: 1GiB] [env: ARGON_BACKGROUND_FILL] [file: background_fill]
    #[arg(long, value_name = "SIZE", help_heading = "Local disk")]
    pub background_fill: Option<String>,
    /// Wake no branch while less than this is free on the data directory's disk; below twice this
    /// the fetched blocks make room first [default: 512MiB] [env: ARGON_MIN_FREE] [file: min_free]
    #[arg(long, value_name = "SIZE", help_heading = "Local disk")]
    pub min_free: Option<String>,
    /// Most client connections at once [default: 8000] [env: ARGON_MAX_CONNECTIONS] [file:
    /// max_connections]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<String>,
    /// Most connections that use one branch at once [default: 4000] [env:
    /// ARGON_MAX_BRANCH_CONNECTIONS] [file: max_branch_connections]
    #[arg(long, value_name = "N")]
    pub max_branch_connections: Option<String>,
    /// Close a new connection that sends no whole message in this time [default: 30s] [env:
    /// ARGON_FIRST_MESSAGE_WAIT] [file: first_message_wait]
    #[arg(long, value_name = "TIME")]
    pub first_message_wait: Option<String>,
    /// Close a connection that has said no hello this long after its first message [default: 30s] [env:
    /// ARGON_HELLO_WAIT] [file: hello_wait]
    #[arg(long, value_name = "TIME")]
    pub hello_wait: Option<String>,
    /// Largest message, and so most memory, of a connection that has said no hello, bytes [default:
    /// 16384] [env: ARGON_FIRST_MESSAGE_BYTES] [file: first_message_bytes]
    #[arg(long, value_name = "BYTES")]
    pub first_message_bytes: Option<String>,
    /// Largest message of a client, bytes; drivers split their writes accordingly [default:
    /// 48000000] [env: ARGON_MESSAGE_BYTES] [file: message_bytes]
    #[arg(long, value_name = "BYTES")]
    pub message_bytes: Option<String>,
    /// Delete from the store what nothing has needed for this time; servers that share a store need
    /// 24h or more [default: 24h] [env: ARGON_GC_MIN_AGE] [file: gc_min_age]
    #[arg(long, value_name = "TIME")]
    pub gc_min_age: Option<String>,
    /// Collect garbage this often, or `never`; `argon gc` does it at once [default: 24h] [env:
    /// ARGON_GC_INTERVAL] [file: gc_interval]
    #[arg(long, value_name = "TIME")]
    pub gc_interval: Option<String>,
    /// Bucket that is the store [default: none, the store is a folder in the data directory] [env:
    /// S3_BUCKET] [file: s3_bucket]
    #[arg(long, value_name = "NAME", help_heading = "Store in S3")]
    pub s3_bucket: Option<String>,
    /// URL of an S3 server that is not Amazon's [env: ARGON_S3_ENDPOINT, AWS_ENDPOINT_URL_S3,
    /// AWS_ENDPOINT_URL] [file: s3_endpoint]
    #[arg(long, value_name = "URL", help_heading = "Store in S3")]
    pub s3_endpoint: Option<String>,
    /// What all keys in the bucket begin with, as in team/argon [default: nothing] [env:
    /// ARGON_S3_PREFIX] [file: s3_prefix]
    #[arg(long, value_name = "PREFIX", help_heading = "Store in S3")]
    pub s3_prefix: Option<String>,
    /// Where requests name the bucket: path, host, or auto (path with an endpoint, else host)
    /// [default: auto] [env: ARGON_S3_ADDRESSING] [file: s3_addressing]
    #[arg(long, value_name = "HOW", help_heading = "Store in S3")]
    pub s3_addressing: Option<String>,
    /// Promise that no other server uses this store; needed where the store does not keep the
    /// conditions of writes, see docs/s3.md [default: false] [env: ARGON_SINGLE_WRITER] [file:
    /// single_writer]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          help_heading = "Store in S3")]
    pub single_writer: Option<String>,
    /// What branches' mongods run in: docker (containers), process, or auto (containers where the
    /// engine answers, has the image, and no mongod is named; else processes) [default: auto] [env:
    /// ARGON_COMPUTE] [file: compute]
    #[arg(long, value_name = "HOW", help_heading = "Containers")]
    pub compute: Option<String>,
    /// Image of the containers; with `--compute docker` it is pulled where it is missing [default:
    /// mongo:8.0] [env: ARGON_IMAGE] [file: image]
    #[arg(long, value_name = "NAME", help_heading = "Containers")]
    pub image: Option<String>,
    /// Unix socket of the container engine [default: that of DOCKER_HOST, else
    /// /var/run/docker.sock] [env: ARGON_DOCKER_SOCKET] [file: docker_socket]
    #[arg(long, value_name = "FILE", help_heading = "Containers")]
    pub docker_socket: Option<String>,
    /// Most memory of a branch's mongod, its files' page cache counted; 0 is no limit [default: 2GiB in
    /// containers] [env: ARGON_BRANCH_MEMORY] [file: branch_memory]
    #[arg(long, value_name = "SIZE")]
    pub branch_memory: Option<String>,
    /// Most CPUs of a branch's mongod, as in 2 or 0.5; 0 is no limit [default: 2 in containers] [env:
    /// ARGON_BRANCH_CPUS] [file: branch_cpus]
    #[arg(long, value_name = "N")]
    pub branch_cpus: Option<String>,
    /// Most threads of a branch's mongod, which has one for each connection; 0 is no limit
    /// [default: 8192 in containers] [env: ARGON_BRANCH_PIDS] [file: branch_pids]
    #[arg(long, value_name = "N")]
    pub branch_pids: Option<String>,
    /// Whom mongod runs as in a container [default: the server's own user; where that is root,
    /// 999:999] [env: ARGON_CONTAINER_USER] [file: container_user]
    #[arg(long, value_name = "UID:GID", help_heading = "Containers")]
    pub container_user: Option<String>,
    /// The mongod to run [default: on PATH, else in Argon's cache, else downloaded into it] [env:
    /// ARGON_MONGOD] [file: mongod]
    #[arg(long, value_name = "FILE")]
    pub mongod: Option<String>,
    /// Key in the store of the archive that new projects start from [default: base/dump.archive]
    /// [env: ARGON_BASE_SNAPSHOT_S3_PATH] [file: base_archive]
    #[arg(long, value_name = "KEY")]
    pub base_archive: Option<String>,
    /// What to log: error, warn, info, debug, trace, or one per part as in `warn,argon::proxy=debug`
    /// [default: info] [env: RUST_LOG] [file: log]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How to write the log: text or json [default: text] [env: ARGON_LOG_FORMAT] [file:
    /// log_format]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

const AFTER_HELP: &str = "\
A flag wins over the environment, the environment over the file, the file over the default.
A `.env` file in the working directory adds to the environment; what is set there already stays.
A variable that is empty counts as not set. Unknown keys in the file are errors.

Credentials and region of the bucket are found as Amazon's own tools find them: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION, AWS_PROFILE, the role of the machine.

Variables of the first Argon: ARGON_AUTO_SUSPEND_ENABLED=false is an idle time-out of `never`,
DASHBOARD_AUTO_SUSPEND_IDLE_MINUTES is one in minutes; ARGON_IDLE_TIMEOUT wins over both.";

/// Reads a configuration file; a key that is not known is an error.
pub(super) fn read_file(path: &Path) -> Result<Values, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|e| ConfigError::File {
        path: path.to_owned(),
        line: text[..e.span().map_or(0, |span| span.start)].matches('\n').count() + 1,
        message: e.message().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::super::config::resolve;
    use super::*;

    #[test]
    fn a_file_with_what_is_not_known_is_refused_by_name_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("argon.toml");
        let rows = [
            ("log = \"info\"\nlisten_on = \"x\"\n", "line 2: unknown field `listen_on`"),
            ("idle_timeout = 5", "line 1: invalid type: integer"),
            ("listen", "line 1: "),
        ];
        for (text, expected) in rows {
            fs::write(&path, text).unwrap();
            let error = read_file(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("argon.toml`"), "{error}");
        }
        let absent = read_file(&folder.path().join("absent.toml")).unwrap_err().to_string();
        assert!(absent.contains("absent.toml"), "{absent}");
    }

    #[test]
    fn help_names_every_setting_with_its_default_its_variable_and_its_key() {
        let help = Flags::augment_args(Command::new("serve")).render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let unset = resolve(&Flags::default(), &|_| None, &Values::default(), Some("/".into()));
        let defaults = unset.unwrap();
        for expected in [
            &format!("[default: {}] [env: ARGON_LISTEN] [file: listen]", defaults.listen),
            &format!("[default: {}] [env: ARGON_ADMIN_LISTEN]", defaults.admin_listen),
            "[env: ARGON_DATA_DIR] [file: data_dir]",
            "[env: ARGON_STORE_DIR] [file: store_dir]",
            "[default: 10m] [env: ARGON_LEASE_TTL] [file: lease_ttl]",
            &format!("[default: {}] [env: ARGON_IDLE_TIMEOUT]", defaults.idle_timeout),
            &format!("[default: {}] [env: ARGON_SNAPSHOT_EVERY]", defaults.snapshot_every),
            "[default: off] [env: ARGON_KEEP_WARM] [file: keep_warm]",
            &format!("[default: {}] [env: ARGON_PARKED] [file: parked]", defaults.parked),
            "[default: auto] [env: ARGON_MOUNT] [file: mount]",
            "[default: 4GiB] [env: ARGON_CACHE_BYTES] [file: cache_bytes]",
            "[default: 1GiB] [env: ARGON_BACKGROUND_FILL] [file: background_fill]",
            "[default: 512MiB] [env: ARGON_MIN_FREE] [file: min_free]",
            &format!("[default: {}] [env: ARGON_MAX_CONNECTIONS]", defaults.limits.connections),
            &format!(
                "[default: {}] [env: ARGON_MAX_BRANCH_CONNECTIONS]",
                defaults.limits.branch_connections
            ),
            &format!(
                "[default: {:?}] [env: ARGON_FIRST_MESSAGE_WAIT]",
                defaults.limits.first_message_wait
            ),
            &format!("[default: {:?}] [env: ARGON_HELLO_WAIT]", defaults.limits.hello_wait),
            &format!(
                "[default: {}] [env: ARGON_FIRST_MESSAGE_BYTES]",
                defaults.limits.first_message_bytes
            ),
            &format!("[default: {}] [env: ARGON_MESSAGE_BYTES]", defaults.limits.message_bytes),
            "[default: 24h] [env: ARGON_GC_MIN_AGE] [file: gc_min_age]",
            "[default: 24h] [env: ARGON_GC_INTERVAL] [file: gc_interval]",
            "[env: ARGON_MONGOD] [file: mongod]",
            "[default: auto] [env: ARGON_COMPUTE] [file: compute]",
            "[default: mongo:8.0] [env: ARGON_IMAGE] [file: image]",
            "[env: ARGON_DOCKER_SOCKET] [file: docker_socket]",
            "[default: 2GiB in containers] [env: ARGON_BRANCH_MEMORY] [file: branch_memory]",
            "[default: 2 in containers] [env: ARGON_BRANCH_CPUS] [file: branch_cpus]",
            "[default: 8192 in containers] [env: ARGON_BRANCH_PIDS] [file: branch_pids]",
            "[env: ARGON_CONTAINER_USER] [file: container_user]",
            &format!("[default: {}] [env: ARGON_BASE_SNAPSHOT", defaults.base_archive),
            &format!("[default: {}] [env: RUST_LOG] [file: log]", defaults.log),
            "[default: text] [env: ARGON_LOG_FORMAT] [file: log_format]",
            "[env: S3_BUCKET] [file: s3_bucket]",
            "[env: ARGON_S3_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL] [file: s3_endpoint]",
            "[env: ARGON_S3_PREFIX] [file: s3_prefix]",
            "[default: auto] [env: ARGON_S3_ADDRESSING] [file: s3_addressing]",
            "[default: false] [env: ARGON_SINGLE_WRITER] [file: single_writer]",
            "AWS_DEFAULT_REGION",
            "[env: ARGON_CONFIG]",
            "ARGON_AUTO_SUSPEND_ENABLED=false",
            "DASHBOARD_AUTO_SUSPEND_IDLE_MINUTES",
        ] {
            assert!(help.contains(expected), "{expected} in {help}");
        }
    }
}
