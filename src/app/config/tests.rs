//! Where settings come from, and which of them wins.

use clap::{Args, Command, FromArgMatches};

use super::*;
use crate::base::limits::LEASE_TTL;
use crate::store::Addressing;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn flags(arguments: &[&str]) -> Flags {
    let command = Flags::augment_args(Command::new("serve").no_binary_name(true));
    Flags::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

fn decide(arguments: &[&str], variables: Variables<'_>, file: &str) -> Result<Config, ConfigError> {
    let variable = |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let file = toml::from_str(file).unwrap();
    resolve(&flags(arguments), &variable, &file, Some("/platform/argon".into()))
}

#[test]
fn no_configuration_is_needed() {
    let expected = Config {
        listen: "127.0.0.1:27017".parse().unwrap(),
        admin_listen: "127.0.0.1:27080".parse().unwrap(),
        data_dir: "/platform/argon".into(),
        store_dir: None,
        idle_timeout: "5m".parse().unwrap(),
        snapshot_every: "1m".parse().unwrap(),
        keep_warm: KeepWarm::Off,
        mounts: Mounts::default(),
        compute: ComputeSettings::default(),
        parked: 1,
        mongod: None,
        bucket: None,
        writers: Writers::Several { lease_ttl: LEASE_TTL },
        base_archive: "base/dump.archive".parse().unwrap(),
        log: "info".into(),
        limits: ClientLimits::default(),
        garbage: Garbage::default(),
        log_format: LogFormat::Text,
        ready: Ready::Text,
        start: Start::Alone,
    };
    assert_eq!(decide(&[], &[], "").unwrap(), expected);
    assert_eq!(expected.warnings(), Vec::<String>::new());
}

/// Every setting from every place: flag, variable, file, each stronger than the next.
#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    type Show = fn(Config) -> String;
    let rows: [(&str, &str, [&str; 3], Show); 35] = [
        ("parked", "ARGON_PARKED", ["0", "2", "64"], |config| config.parked.to_string()),
        ("s3_bucket", "S3_BUCKET", ["one", "two", "three"], |config| config.bucket.unwrap().bucket),
        ("s3_endpoint", "ARGON_S3_ENDPOINT", ["http://a", "http://b", "http://c"], |config| {
            config.bucket.unwrap().endpoint.unwrap()
        }),
        ("s3_prefix", "ARGON_S3_PREFIX", ["a/b/", "B/", "c/"], |config| {
            config.bucket.unwrap().prefix.as_str().to_owned()
        }),
        ("s3_addressing", "ARGON_S3_ADDRESSING", ["path", "host", "path"], |config| {
            format!("{:?}", config.bucket.unwrap().addressing).to_lowercase()
        }),
        ("single_writer", "ARGON_SINGLE_WRITER", ["true", "false", "true"], |config| {
            (config.writers == Writers::One).to_string()
        }),
        ("max_connections", "ARGON_MAX_CONNECTIONS", ["1", "2", "3"], |config| {
            config.limits.connections.to_string()
        }),
        ("max_branch_connections", "ARGON_MAX_BRANCH_CONNECTIONS", ["1", "2", "3"], |config| {
            config.limits.branch_connections.to_string()
        }),
        ("first_message_wait", "ARGON_FIRST_MESSAGE_WAIT", ["1s", "2s", "3s"], |config| {
            format!("{:?}", config.limits.first_message_wait)
        }),
        ("hello_wait", "ARGON_HELLO_WAIT", ["1s", "2s", "3s"], |config| {
            format!("{:?}", config.limits.hello_wait)
        }),
        ("first_message_bytes", "ARGON_FIRST_MESSAGE_BYTES", ["2000", "3000", "4000"], |config| {
            config.limits.first_message_bytes.to_string()
        }),
        ("message_bytes", "ARGON_MESSAGE_BYTES", ["17000000", "18000000", "48000000"], |config| {
            config.limits.message_bytes.to_string()
        }),
        ("listen", "ARGON_LISTEN", ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], |config| {
            config.listen.to_string()
        }),
        (
            "admin_listen",
            "ARGON_ADMIN_LISTEN",
            ["[::1]:1", "127.0.0.1:2", "127.0.0.1:3"],
            |config| config.admin_listen.to_string(),
        ),
        ("data_dir", "ARGON_DATA_DIR", ["/a", "/b", "/c"], |config| {
            config.data_dir.display().to_string()
        }),
        ("store_dir", "ARGON_STORE_DIR", ["/a", "/b", "/c"], |config| {
            config.store_dir.unwrap().display().to_string()
        }),
        ("lease_ttl", "ARGON_LEASE_TTL", ["1s", "2s", "3s"], |config| {
            let Writers::Several { lease_ttl } = config.writers else { unreachable!() };
            format!("{lease_ttl:?}")
        }),
        ("idle_timeout", "ARGON_IDLE_TIMEOUT", ["1s", "2m", "never"], |config| {
            config.idle_timeout.to_string()
        }),
        ("keep_warm", "ARGON_KEEP_WARM", ["1s", "2m", "off"], |config| {
            config.keep_warm.to_string()
        }),
        ("snapshot_every", "ARGON_SNAPSHOT_EVERY", ["1s", "2m", "off"], |config| {
            config.snapshot_every.to_string()
        }),
        ("mount", "ARGON_MOUNT", ["eager", "lazy", "auto"], |config| {
            format!("{:?}", config.mounts.kind).to_lowercase()
        }),
        ("cache_bytes", "ARGON_CACHE_BYTES", ["1", "2", "3"], |config| {
            config.mounts.cache_bytes.to_string()
        }),
        ("background_fill", "ARGON_BACKGROUND_FILL", ["0", "2", "3"], |config| {
            config.mounts.background_fill_bytes.to_string()
        }),
        ("min_free", "ARGON_MIN_FREE", ["0", "2", "3"], |config| {
            config.mounts.min_free_bytes.to_string()
        }),
        ("compute", "ARGON_COMPUTE", ["docker", "process", "auto"], |config| {
            format!("{:?}", config.compute.kind).to_lowercase()
        }),
        ("image", "ARGON_IMAGE", ["a", "b:1", "c/d@sha256:0"], |config| config.compute.image),
        ("docker_socket", "ARGON_DOCKER_SOCKET", ["/a", "/b", "/c"], |config| {
            config.compute.socket.unwrap().display().to_string()
        }),
        ("branch_memory", "ARGON_BRANCH_MEMORY", ["0", "2", "3"], |config| {
            config.compute.limits.memory_bytes.unwrap().to_string()
        }),
        ("branch_cpus", "ARGON_BRANCH_CPUS", ["0", "2", "3"], |config| {
            (config.compute.limits.cpu_thousandths.unwrap() / 1000).to_string()
        }),
        ("branch_pids", "ARGON_BRANCH_PIDS", ["0", "2", "3"], |config| {
            config.compute.limits.pids.unwrap().to_string()
        }),
        ("container_user", "ARGON_CONTAINER_USER", ["1:2", "3:4", "5:6"], |config| {
            config.compute.user.unwrap().to_string()
        }),
        ("mongod", "ARGON_MONGOD", ["/a", "/b", "/c"], |config| {
            config.mongod.unwrap().0.display().to_string()
        }),
        ("base_archive", "ARGON_BASE_SNAPSHOT_S3_PATH", ["a", "b", "c"], |config| {
            config.base_archive.to_string()
        }),
        ("log", "RUST_LOG", ["warn", "debug", "argon::proxy=trace"], |config| config.log),
        ("log_format", "ARGON_LOG_FORMAT", ["json", "text", "json"], |config| {
            format!("{:?}", config.log_format).to_lowercase()
        }),
    ];
    for (key, variable, [by_flag, by_variable, by_file], show) in rows {
        let flag = format!("--{}", key.replace('_', "-"));
        let file = format!("{key} = \"{by_file}\"");
        // The others of a bucket mean nothing without one.
        let set = |value| [(variable, value), ("S3_BUCKET", "bucket")];
        let all = decide(&[&flag, by_flag], &set(by_variable), &file).unwrap();
        assert_eq!(show(all), by_flag, "{key}");
        let without_flag = decide(&[], &set(by_variable), &file).unwrap();
        assert_eq!(show(without_flag), by_variable, "{key}");
        let only_file = decide(&[], &set(""), &file).unwrap();
        assert_eq!(show(only_file), by_file, "{key}");
    }
}

#[test]
fn variables_of_the_first_argon_keep_their_meaning() {
    const ENABLED: &str = "ARGON_AUTO_SUSPEND_ENABLED";
    const MINUTES: &str = "DASHBOARD_AUTO_SUSPEND_IDLE_MINUTES";
    let rows: [(&[&str], Variables<'_>, &str); 7] = [
        (&[], &[(ENABLED, "false")], "never"),
        (&[], &[(ENABLED, "False"), (MINUTES, "10")], "never"),
        (&[], &[(ENABLED, "true"), (MINUTES, "10")], "10m"),
        (&[], &[(ENABLED, "true")], "7m"),
        (&[], &[(MINUTES, "10")], "10m"),
        (&[], &[(ENABLED, "false"), ("ARGON_IDLE_TIMEOUT", "3s")], "3s"),
        (&["--idle-timeout", "2s"], &[(ENABLED, "false")], "2s"),
    ];
    for (arguments, variables, expected) in rows {
        let config = decide(arguments, variables, "idle_timeout = \"7m\"").unwrap();
        assert_eq!(config.idle_timeout.to_string(), expected, "{variables:?}");
    }
}

#[test]
fn a_value_that_cannot_be_read_is_named_with_the_place_it_came_from() {
    let rows: [(&[&str], Variables<'_>, &str, &str); 24] = [
        (&["--max-connections", "0"], &[], "", "--max-connections is `0`: expected a number"),
        (&[], &[("ARGON_HELLO_WAIT", "never")], "", "expected a time, as in 30s"),
        (&["--gc-min-age", "1h", "--s3-bucket", "one"], &[], "", "24h or more in a bucket"),
        (&[], &[], "first_message_bytes = \"65537\"", "bytes, 1024 to 65536"),
        (&["--message-bytes", "48000001"], &[], "", "bytes, 16793600 to 48000000"),
        (&["--message-bytes", "1000"], &[], "", "bytes, 16793600 to 48000000"),
        (&["--listen", "27017"], &[], "", "--listen is `27017`: expected IP:PORT"),
        (&[], &[("ARGON_ADMIN_LISTEN", "x")], "", "ARGON_ADMIN_LISTEN is `x`: expected IP"),
        (&[], &[], "listen = \"x\"", "`listen` in the configuration file is `x`"),
        (&["--idle-timeout", "5"], &[], "", "--idle-timeout is `5`: expected a time"),
        (&["--snapshot-every", "500ms"], &[], "", "a time of at least 1s, or off"),
        (&["--mount", "fuse"], &[], "", "--mount is `fuse`: expected auto, lazy or eager"),
        (&["--cache-bytes", "4G"], &[], "", "--cache-bytes is `4G`: expected a number of bytes"),
        (&["--lease-ttl", "500ms"], &[], "", "a time of at least 1s, as in 10m"),
        (&[], &[("ARGON_AUTO_SUSPEND_ENABLED", "no")], "", "expected true or false"),
        (&[], &[("DASHBOARD_AUTO_SUSPEND_IDLE_MINUTES", "0")], "", "at least 1"),
        (&["--log", "argon=loud"], &[], "", "--log is `argon=loud`: expected a log filter"),
        (&["--log-format", "xml"], &[], "", "expected text or json"),
        (&[], &[("S3_BUCKET", "s3://x")], "", "S3_BUCKET is `s3://x`: expected a bucket"),
        (&["--s3-bucket", "abc", "--s3-endpoint", "x:1"], &[], "", "expected a URL, as in"),
        (&["--s3-bucket", "abc", "--s3-prefix", "../x"], &[], "", "expected names with"),
        (&["--s3-bucket", "abc", "--s3-addressing", "x"], &[], "", "expected auto, path or"),
        (&["--single-writer", "yes"], &[], "", "--single-writer is `yes`: expected true or"),
        (&["--base-archive", "/etc"], &[], "", "--base-archive is `/etc`: expected a key"),
    ];
    for (arguments, variables, file, expected) in rows {
        let error = decide(arguments, variables, file).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.hint().is_empty());
    }
    assert!(decide(&[], &[("S3_BUCKET", "")], "").is_ok());
}

#[test]
fn with_an_endpoint_the_bucket_stands_in_the_path() {
    let rows: [(&[&str], Variables<'_>, Option<&str>, Addressing); 5] = [
        (&[], &[], None, Addressing::Host),
        (&["--s3-endpoint", "http://h:1/"], &[], Some("http://h:1"), Addressing::Path),
        (&[], &[("AWS_ENDPOINT_URL", "http://h:1")], Some("http://h:1"), Addressing::Path),
        (
            &[],
            &[("AWS_ENDPOINT_URL", "http://h:1"), ("AWS_ENDPOINT_URL_S3", "http://h:2")],
            Some("http://h:2"),
            Addressing::Path,
        ),
        (
            &["--s3-endpoint", "https://h", "--s3-addressing", "host"],
            &[],
            Some("https://h"),
            Addressing::Host,
        ),
    ];
    for (arguments, variables, endpoint, addressing) in rows {
        let arguments = [&["--s3-bucket", "bucket"], arguments].concat();
        let bucket = decide(&arguments, variables, "").unwrap().bucket.unwrap();
        assert_eq!((bucket.endpoint.as_deref(), bucket.addressing), (endpoint, addressing));
    }
    assert_eq!(decide(&["--single-writer"], &[], "").unwrap().writers, Writers::One);
}

#[test]
fn an_address_that_others_can_reach_is_warned_about() {
    for (address, warnings) in
        [("127.0.0.1:0", 0), ("[::1]:0", 0), ("0.0.0.0:0", 1), ("192.0.2.1:1", 1)]
    {
        assert_eq!(decide(&["--listen", address], &[], "").unwrap().warnings().len(), warnings);
        let config = decide(&["--admin-listen", address], &[], "").unwrap();
        assert_eq!(config.warnings().len(), warnings, "{address}");
    }
}
