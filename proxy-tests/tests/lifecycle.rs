//! What may be done with a branch, when, and what is said where it may not.

use std::fs;
use std::path::Path;

use anyhow::Result;
use argon_admin::types::{Branch, BranchState, Operation, OperationKind, Version};
use futures_util::future::try_join_all;
use proxy_tests::driver;
use proxy_tests::obstacle::Gate;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually_async;

const OK: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNKNOWN: i32 = 3;
const NOT_NOW: i32 = 4;

/// One command after the other: what it ends with and what its error says. The state that one
/// leaves is where the next one starts.
fn check(server: &Server, rows: &[(&str, i32, &str)]) -> Result<()> {
    for (line, code, says) in rows {
        let arguments: Vec<_> = line.split_whitespace().collect();
        let output = server.cli().output(&arguments)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(*code), "argon {line}\n{stderr}");
        assert!(stderr.contains(says), "argon {line}: expected `{says}` in\n{stderr}");
        if *code == NOT_NOW || *code == UNKNOWN {
            assert!(
                stderr.lines().any(|line| line.starts_with("hint: ")),
                "argon {line}\n{stderr}"
            );
        }
    }
    Ok(())
}

fn names(server: &Server, deleted: &[&str]) -> Result<Vec<String>> {
    let listed: Vec<Branch> = server.cli().json(&[&["branch", "list"], deleted].concat())?;
    Ok(listed.into_iter().map(|branch| branch.name).collect())
}

#[test]
fn every_step_is_idempotent_or_says_why_not() -> Result<()> {
    let server = Server::start()?;
    check(
        &server,
        &[
            ("branch list", UNKNOWN, "there is no project yet"),
            ("project create shop", OK, ""),
            ("project create shop", NOT_NOW, "there is a project `shop` already"),
            ("branch show dev", UNKNOWN, "there is no branch `dev`"),
            ("branch create dev --empty", OK, ""),
            ("branch create dev --empty", NOT_NOW, "there is a branch `dev`"),
            ("branch create x --from nope", UNKNOWN, "there is no branch `nope`"),
            ("branch create x --project nope", UNKNOWN, "there is no project `nope`"),
            ("branch suspend dev", OK, ""),
            ("branch resume dev", OK, ""),
            ("branch resume dev", OK, ""),
            ("branch suspend dev", OK, ""),
            ("branch suspend dev", OK, ""),
            ("branch undelete dev", NOT_NOW, "not deleted"),
            ("branch purge dev", NOT_NOW, "not deleted"),
            ("project delete shop", NOT_NOW, "still has branches"),
            ("branch delete dev", OK, ""),
            ("branch delete dev", UNKNOWN, "--deleted"),
            ("branch resume dev", UNKNOWN, "--deleted"),
            ("branch suspend dev", UNKNOWN, "--deleted"),
            ("branch undelete dev", OK, ""),
            ("branch undelete dev", NOT_NOW, "not deleted"),
            ("branch delete dev", OK, ""),
            ("branch purge dev", OK, ""),
            ("branch purge dev", UNKNOWN, "there is no branch `dev`"),
            ("branch undelete dev", UNKNOWN, "there is no branch `dev`"),
            ("project delete shop", OK, ""),
            ("project delete shop", UNKNOWN, "there is no project `shop`"),
            ("project create one", OK, ""),
            ("project create two", OK, ""),
            ("branch list", USAGE, "one, two"),
            ("branch list --project two", OK, ""),
        ],
    )
}

#[test]
fn names_are_checked() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    let long = "a".repeat(64);
    for name in ["Dev", "dev_1", "dev/1", "dev.", "ö", "", "-dev", "dev-", &long] {
        for command in
            [&["branch", "create", "--empty", "--", name][..], &["project", "create", "--", name]]
        {
            let failure = server.cli().fail(command)?;
            assert_eq!(failure.code, FAILED, "{command:?}: {}", failure.stderr);
            let said = format!("`{name}` is not a name");
            assert!(failure.stderr.contains(&said), "{}", failure.stderr);
        }
    }
    let longest = "a".repeat(63);
    server.branch(&longest, &["--empty"])?;
    assert_eq!(names(&server, &[])?, [longest]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_branch_is_listed_and_comes_back_with_its_last_state() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    let dev = server.branch("dev", &["--empty"])?;
    let client = driver::connect(&dev.uri).await?;
    insert(&client, "never suspended").await?;
    server.cli().run(&["branch", "delete", "dev"])?;
    assert!(server.mongods().is_empty());
    assert_eq!(names(&server, &[])?, Vec::<String>::new());
    assert_eq!(names(&server, &["--deleted"])?, ["dev"]);
    let error = changes(&client).await.unwrap_err();
    assert!(format!("{error:#}").contains("dev"), "{error:#}");

    // Another one takes the name; the deleted one cannot come back under it.
    server.branch("dev", &["--empty"])?;
    let listed: Vec<Branch> = server.cli().json(&["branch", "list", "--deleted"])?;
    assert_eq!(listed[0].id, dev.id);
    check(&server, &[("branch undelete dev", NOT_NOW, "dev")])?;
    check(&server, &[("branch delete dev", OK, "")])?;
    assert_eq!(names(&server, &["--deleted"])?.len(), 2);

    // Two deleted ones of one name: each has an id to be called by.
    check(&server, &[(&format!("branch undelete {}", dev.id), OK, "")])?;
    assert_eq!(server.show("dev")?.id, dev.id);
    assert_eq!(changes(&client).await?, ["never suspended"]);
    Ok(())
}

/// The gate keeps the branch waking until the delete and everybody else wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_others_wait_for_serves_them_before_it_is_deleted() -> Result<()> {
    const WAITING: usize = 10;
    let gate = Gate::new()?;
    let server = Setup::new()?.variable("ARGON_MONGOD", gate.path()).start()?;
    server.project("shop")?;
    let dev = server.branch("dev", &["--empty"])?;
    let held = gate.hold()?;
    let writers = try_join_all((0..WAITING).map(|number| {
        let uri = &dev.uri;
        async move { insert(&driver::connect(uri).await?, &format!("waited {number}")).await }
    }));
    let cli = server.cli();
    let delete = async {
        server.until("dev", |now| now.clients >= 2 * WAITING as u64).await?;
        assert_eq!(server.show("dev")?.state, BranchState::Waking);
        let deleting = tokio::task::spawn_blocking(move || cli.run(&["branch", "delete", "dev"]));
        let begun = || async {
            let operations: Vec<Operation> = server.cli().json(&["operation", "list"])?;
            let delete = operations.iter().find(|one| one.kind == OperationKind::DeleteBranch);
            Ok(delete.map(drop))
        };
        eventually_async("the delete waits too", begun).await?;
        drop(held);
        deleting.await?
    };
    futures_util::future::try_join(writers, delete).await?;
    assert_eq!(names(&server, &["--deleted"])?, ["dev"]);
    check(&server, &[("branch undelete dev", OK, "")])?;
    let client = driver::connect(&dev.uri).await?;
    assert_eq!(changes(&client).await?.len(), WAITING);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_travel_goes_to_versions_that_were() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    let dev = server.branch("dev", &["--empty"])?;
    let client = driver::connect(&dev.uri).await?;
    for text in ["one", "two"] {
        insert(&client, text).await?;
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    }
    let versions: Vec<Version> = server.cli().json(&["branch", "list-versions", "dev"])?;
    let [start, first, second] = &versions[..] else { panic!("{versions:?}") };
    let travel =
        |name: &str, option: &str| format!("branch time-travel {name} --from-branch dev {option}");
    let absent = "01arz3ndektsv4rrffq69g5fav";
    let rows = [
        (travel("x", "--timestamp 2001-01-01T00:00:00Z"), NOT_NOW, start.created_at.as_str()),
        (travel("x", &format!("--version-id {absent}")), UNKNOWN, absent),
        (travel("x", "--timestamp yesterday"), USAGE, "RFC 3339"),
        (travel("x", "--version-id 1"), USAGE, "26"),
        (travel("x", ""), USAGE, "--timestamp"),
        (travel("at-first", &format!("--timestamp {}", first.created_at)), OK, ""),
        (travel("by-id", &format!("--version-id {}", first.id)), OK, ""),
        (travel("at-second", &format!("--timestamp {}", second.created_at)), OK, ""),
        (travel("later", "--timestamp 2999-01-01T00:00:00Z"), OK, ""),
        (format!("branch create from-id --from dev@{}", first.id), OK, ""),
        (format!("branch create from-time --from dev@{}", first.created_at), OK, ""),
        ("branch create from-head --from dev".into(), OK, ""),
    ];
    for (line, code, says) in &rows {
        check(&server, &[(line, *code, says)])?;
    }
    for (name, version) in [
        ("at-first", first),
        ("by-id", first),
        ("at-second", second),
        ("later", second),
        ("from-id", first),
        ("from-time", first),
        ("from-head", second),
    ] {
        assert_eq!(server.show(name)?.head_version, version.id, "{name}");
    }
    assert!(server.cli().fail(&["branch", "show", "x"])?.stderr.contains("no branch `x`"));
    let old = driver::connect(&server.show("by-id")?.uri).await?;
    assert_eq!(changes(&old).await?, ["one"]);
    let new = driver::connect(&server.show("from-head")?.uri).await?;
    assert_eq!(changes(&new).await?, ["one", "two"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_shares_data_and_goes_its_own_way() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    let client = driver::connect(&server.branch("dev", &[])?.uri).await?;
    insert(&client, "both").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let before = bytes_below(server.data_dir());
    for number in 0..10 {
        server.branch(&format!("fork-{number}"), &["--from", "dev"])?;
    }
    let each = (bytes_below(server.data_dir()) - before) / 10;
    let whole = server.show("dev")?.size_bytes;
    assert!(each < 64 * 1024, "a fork of {whole} bytes takes {each} bytes");

    let fork = driver::connect(&server.show("fork-3")?.uri).await?;
    insert(&fork, "only here").await?;
    assert_eq!(changes(&fork).await?, ["both", "only here"]);
    assert_eq!(changes(&client).await?, ["both"]);
    // What the fork changed is all that its version adds.
    server.cli().run(&["branch", "suspend", "--wait", "fork-3"])?;
    let versions: Vec<Version> = server.cli().json(&["branch", "list-versions", "fork-3"])?;
    let [start, own] = &versions[..] else { panic!("{versions:?}") };
    assert_eq!(start.id, server.show("dev")?.head_version);
    assert!(own.new_bytes < own.size_bytes / 2, "{versions:?}");
    Ok(())
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
