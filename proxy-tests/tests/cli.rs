//! The command line: what goes where, exit codes, and the next step after an error.

use std::fs;
use std::process::{Command, Output};

use anyhow::Result;
use argon_admin::types::{Branch, BranchState};
use proxy_tests::binary::argon;
use proxy_tests::cli::Cli;
use proxy_tests::server::{Server, Setup};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn connect_prints_the_uri_and_nothing_else() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    let dev = server.branch("dev", &["--empty"])?;
    let output = server.cli().output(&["connect", "dev"])?;
    assert_eq!(text(&output.stdout), format!("{}\n", dev.uri));
    assert_eq!(text(&output.stderr), "");
    let expected = format!("mongodb://{}/?appName=argon.shop%2Fdev", server.listen);
    assert_eq!(dev.uri, expected);
    let json: Value = server.cli().json(&["connect", "dev"])?;
    assert_eq!(json, serde_json::json!({ "uri": expected }));
    Ok(())
}

#[test]
fn every_command_speaks_json() -> Result<()> {
    let server = Server::start()?;
    let cli = server.cli();
    let rows: [(&[&str], &str); 14] = [
        (&["project", "create", "shop"], "/name"),
        (&["project", "list"], "/0/name"),
        (&["branch", "create", "dev", "--empty"], "/uri"),
        (&["branch", "list"], "/0/state"),
        (&["branch", "show", "dev"], "/id"),
        (&["branch", "resume", "dev"], "/state"),
        (&["branch", "suspend", "--wait", "dev"], "/state"),
        (&["branch", "list-versions", "dev"], "/0/id"),
        (&["branch", "delete", "dev"], "/state"),
        (&["branch", "list", "--deleted"], "/0/deleted_at"),
        (&["branch", "undelete", "dev"], "/state"),
        (&["connect", "dev"], "/uri"),
        (&["status"], "/mongod/version"),
        (&["base", "show"], "/digest"),
    ];
    for (arguments, pointer) in rows {
        let value: Value = cli.json(arguments)?;
        assert!(value.pointer(pointer).is_some_and(Value::is_string), "{arguments:?}: {value}");
    }
    let status: Value = cli.json(&["status"])?;
    assert_eq!(status["listen"], server.listen.as_str());
    Ok(())
}

fn check_failure(output: &Output, code: i32, says: &str) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "`{says}` in:\n{stderr}");
    assert_eq!(stdout, "", "data only on stdout");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn failures_have_their_codes_and_a_hint() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    server.branch("dev", &["--empty"])?;
    let rows: [(&[&str], i32, &str); 7] = [
        (&["branch", "show", "nope"], 3, "hint: "),
        (&["connect", "nope"], 3, "hint: "),
        (&["branch", "create", "dev"], 4, "hint: "),
        (&["branch", "create"], 2, "Usage: "),
        (&["branch", "create", "x", "--empty", "--from", "dev"], 2, "cannot be used with"),
        (&["branch", "create", "x", "--idle-timeout", "soon"], 2, "idle time-out"),
        (&["base", "set", "/no/such/file"], 1, "/no/such/file"),
    ];
    for (arguments, code, says) in rows {
        check_failure(&server.cli().output(arguments)?, code, says);
    }
    let nobody = Cli::new("http://127.0.0.1:9").output(&["status"])?;
    check_failure(&nobody, 5, "hint: start one with `argon serve`");

    let failure = server.cli().fail(&["branch", "show", "nope", "--json"])?;
    let problem: Value = serde_json::from_str(&failure.stderr)?;
    assert_eq!(problem["code"], "unknown_branch");
    assert_eq!(problem["status"], 404);
    assert!(problem["hint"].is_string());
    Ok(())
}

#[test]
fn the_project_is_the_named_one_or_the_only_one() -> Result<()> {
    let server = Server::start()?;
    server.project("one")?;
    server.branch("dev", &["--empty"])?;
    server.project("two")?;
    check_failure(&server.cli().output(&["branch", "show", "dev"])?, 2, "hint: ");
    let dev: Branch = server.cli().json(&["branch", "show", "dev", "--project", "one"])?;
    assert_eq!(dev.project, "one");
    let output = Command::new(argon())
        .args(["branch", "list", "--json"])
        .env("ARGON_PROJECT", "two")
        .env("ARGON_SERVER", format!("http://{}", server.admin))
        .output()?;
    assert_eq!(text(&output.stdout), "[]\n");
    Ok(())
}

#[test]
fn without_arguments_it_helps_and_it_knows_its_version() -> Result<()> {
    let bare = Command::new(argon()).output()?;
    let help = text(&bare.stderr) + &text(&bare.stdout);
    for word in ["serve", "project", "branch", "base", "connect", "status", "mongod", "Exit codes"]
    {
        assert!(help.contains(word), "{word} in {help}");
    }
    let version = Command::new(argon()).arg("--version").output()?;
    assert!(text(&version.stdout).starts_with("argon 0."), "{version:?}");
    let serve = text(&Command::new(argon()).args(["serve", "--help"]).output()?.stdout);
    assert!(serve.contains("[default: 127.0.0.1:27017]"), "{serve}");
    Ok(())
}

#[test]
fn mongod_which_prints_a_path_that_runs() -> Result<()> {
    let output = Command::new(argon()).args(["mongod", "install"]).output()?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = text(&output.stdout).trim_end().to_owned();
    let said = Command::new(&path).arg("--version").output()?;
    assert!(text(&said.stdout).starts_with("db version v"), "{said:?}");
    let json = Command::new(argon())
        .args(["mongod", "which", "--json"])
        .env("ARGON_MONGOD", &path)
        .output()?;
    let json: Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(
        (json["path"].as_str(), json["source"].as_str()),
        (Some(&*path), Some("ARGON_MONGOD"))
    );

    let folder = std::path::Path::new(&path).parent().unwrap_or(std::path::Path::new("/"));
    let relative = Command::new(argon())
        .args(["mongod", "which"])
        .current_dir(folder)
        .env("ARGON_MONGOD", "mongod")
        .output()?;
    assert_eq!(text(&relative.stdout).trim_end(), path, "it is started from other folders");

    let wrong = Command::new(argon())
        .args(["mongod", "which"])
        .env("ARGON_MONGOD", "/no/such/mongod")
        .output()?;
    check_failure(&wrong, 1, "/no/such/mongod");
    assert!(text(&wrong.stderr).contains("\nhint: "));
    let none = Command::new(argon())
        .args(["mongod", "which"])
        .env_remove("ARGON_MONGOD")
        .env("PATH", "/no/such/folder")
        .env("ARGON_CACHE_DIR", "/no/such/cache")
        .output()?;
    check_failure(&none, 3, "hint: `argon mongod install`");
    Ok(())
}

#[test]
fn a_dotenv_file_speaks_and_a_wrong_setting_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let serve = |dotenv: &str, variable: Option<(&str, &str)>| -> Result<Output> {
        fs::write(folder.path().join(".env"), dotenv)?;
        let mut command = Command::new(argon());
        command.args(["serve", "--data-dir", "/dev/null/never"]).current_dir(folder.path());
        Ok(command.envs(variable).output()?)
    };
    let rows = [
        ("ARGON_LISTEN=here", None, "ARGON_LISTEN is `here`"),
        ("# a comment\nS3_BUCKET='s3://prod'\n", None, "S3_BUCKET"),
        ("ARGON_LISTEN=here", Some(("ARGON_LISTEN", "there")), "ARGON_LISTEN is `there`"),
        ("this is no assignment", None, ".env"),
    ];
    for (dotenv, variable, says) in rows {
        let output = serve(dotenv, variable)?;
        check_failure(&output, 2, says);
        assert!(text(&output.stderr).contains("\nhint: "), "{output:?}");
    }
    let output = Command::new(argon())
        .args(["serve", "--config", "/no/such/argon.toml"])
        .current_dir(folder.path().join(".."))
        .output()?;
    check_failure(&output, 2, "/no/such/argon.toml");
    Ok(())
}

/// As after `argon serve 2>&1 | head -1`: each line that it says fails, those of its log too.
#[test]
fn a_server_serves_and_ends_though_nobody_reads_what_it_says() -> Result<()> {
    let mut server = Setup::new()?.unread().variable("RUST_LOG", "argon=debug").start()?;
    server.project("demo")?;
    server.branch("dev", &["--empty"])?;
    let dev: Branch = server.cli().json(&["branch", "resume", "dev"])?;
    assert_eq!(dev.state, BranchState::Running);
    let status = server.stop(libc::SIGTERM)?;
    assert!(status.success(), "{status}");
    assert_eq!(server.log(), "", "nobody was told");
    Ok(())
}
