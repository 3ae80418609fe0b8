//! Versions as users see them: made, called, kept and gone back to.

use anyhow::Result;
use argon_admin::types::{BranchState, Version};
use proxy_tests::driver;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::Server;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNKNOWN: i32 = 3;
const NOT_NOW: i32 = 4;

fn check(server: &Server, line: &str, code: i32, says: &str) -> Result<()> {
    let failure = server.cli().fail(&line.split_whitespace().collect::<Vec<_>>())?;
    assert_eq!(failure.code, code, "argon {line}: {}", failure.stderr);
    assert!(failure.stderr.contains(says), "argon {line}: `{says}` in {}", failure.stderr);
    if code != USAGE {
        assert!(failure.stderr.contains("hint: "), "argon {line}: {}", failure.stderr);
    }
    Ok(())
}

fn versions(server: &Server) -> Result<Vec<Version>> {
    server.cli().json(&["branch", "list-versions", "dev"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_made_on_request_and_found_by_its_label() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    let dev = server.branch("dev", &["--empty"])?;
    let client = driver::connect(&dev.uri).await?;
    insert(&client, "one").await?;

    // Of a branch that runs, and goes on.
    let first: Version =
        server.cli().json(&["branch", "snapshot", "dev", "--label", "before-the-sale"])?;
    assert_eq!(
        (first.cause.as_str(), first.label.as_deref()),
        ("snapshot", Some("before-the-sale"))
    );
    assert!(first.new_bytes > 0);
    assert_eq!(server.show("dev")?.state, BranchState::Running);
    insert(&client, "two").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;

    // Of one that sleeps: a version of its own, with nothing new in it.
    let second: Version = server.cli().json(&["branch", "snapshot", "dev", "--label", "v1.2"])?;
    let third: Version = server.cli().json(&["branch", "snapshot", "dev"])?;
    assert_eq!((second.new_bytes, second.stored_bytes), (0, 0));
    assert_eq!(third.parent, Some(second.id.clone()));
    assert_eq!(server.show("dev")?.head_version, third.id);
    let listed = versions(&server)?;
    let causes: Vec<_> = listed.iter().map(|version| version.cause.as_str()).collect();
    assert_eq!(causes, ["empty", "snapshot", "suspend", "snapshot", "snapshot"]);
    assert_eq!(changes(&client).await?, ["one", "two"]);

    check(&server, "branch snapshot dev --label v1.2", NOT_NOW, &second.id)?;
    check(&server, "branch snapshot nope", UNKNOWN, "no branch `nope`")?;
    check(&server, "branch snapshot dev --label 2.0", USAGE, "begin with a letter")?;
    check(&server, "branch time-travel x --from-branch dev --label v9", UNKNOWN, "`v9`")?;
    check(&server, "branch create x --from dev@v9", UNKNOWN, "`v9`")?;
    assert_eq!(server.show("dev")?.state, BranchState::Running, "a refusal suspends nothing");

    let travel = ["branch", "time-travel", "old", "--from-branch", "dev", "--label"];
    server.cli().run(&[&travel[..], &["before-the-sale"]].concat())?;
    server.branch("also", &["--from", "dev@v1.2"])?;
    assert_eq!(server.show("old")?.head_version, first.id);
    assert_eq!(server.show("also")?.head_version, second.id);
    assert_eq!(changes(&driver::connect(&server.show("old")?.uri).await?).await?, ["one"]);
    assert_eq!(changes(&driver::connect(&server.show("also")?.uri).await?).await?, ["one", "two"]);
    Ok(())
}

#[test]
fn of_two_who_want_a_label_one_gets_it() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    server.branch("dev", &["--empty"])?;
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let take = || server.cli().output(&["branch", "snapshot", "dev", "--label", "mine"]);
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<_>>()
    })?;
    let won = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(won, 1, "{outputs:?}");
    assert_eq!(versions(&server)?.len(), 2);
    Ok(())
}

#[test]
fn a_pin_is_listed_and_lies_in_the_store() -> Result<()> {
    let server = Server::start()?;
    server.project("shop")?;
    server.branch("dev", &["--empty"])?;
    let version: Version = server.cli().json(&["branch", "snapshot", "dev"])?;
    let object = server.data_dir().join("store/pins").join(&version.id);
    assert!(!version.pinned);
    for _ in 0..2 {
        let pinned: Version = server.cli().json(&["branch", "pin", &version.id])?;
        assert!(pinned.pinned && object.is_file());
    }
    let pins: Vec<_> = versions(&server)?.iter().map(|version| version.pinned).collect();
    assert_eq!(pins, [false, true]);
    for _ in 0..2 {
        server.cli().run(&["branch", "unpin", &version.id])?;
        assert!(!object.exists());
    }
    check(&server, "branch pin 01arz3ndektsv4rrffq69g5fav", UNKNOWN, "no version")?;
    let odd = server.cli().fail(&["branch", "pin", "yesterday"])?;
    assert_eq!(odd.code, FAILED);
    assert!(odd.stderr.contains("not an id"), "{}", odd.stderr);
    Ok(())
}
