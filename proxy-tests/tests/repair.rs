//! The catalog is lost: the store alone is enough.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;
use argon_admin::types::{Branch, Project, Version};
use proxy_tests::binary::argon;
use proxy_tests::driver;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use serde_json::Value;

/// Runs `argon repair` on a data folder.
fn repair(data_dir: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(argon());
    command.arg("repair").args(arguments).arg("--data-dir").arg(data_dir);
    // No settings of a developer's own.
    command.arg("--config").arg(data_dir.with_file_name("argon.toml"));
    Ok(command.current_dir(data_dir.with_file_name("")).output()?)
}

fn refused(data_dir: &Path, arguments: &[&str], says: &[&str]) -> Result<()> {
    let output = repair(data_dir, arguments)?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    for words in says.iter().chain(&["\nhint: "]) {
        assert!(stderr.contains(words), "`{words}` in {stderr}");
    }
    Ok(())
}

fn lose_the_catalog(data_dir: &Path) -> Result<()> {
    for entry in fs::read_dir(data_dir)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("catalog")) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// What users see that must be the same afterwards.
#[derive(Debug, PartialEq)]
struct Seen {
    projects: Vec<Project>,
    /// Each branch's.
    versions: Vec<Vec<Version>>,
    branches: Vec<Value>,
}

fn seen(server: &Server) -> Result<Seen> {
    let cli = server.cli();
    let mut branches = Vec::new();
    for deleted in [&[][..], &["--deleted"]] {
        branches.extend(cli.json::<Vec<Branch>>(&[&["branch", "list"], deleted].concat())?);
    }
    let (mut versions, mut stable) = (Vec::new(), Vec::new());
    for branch in branches {
        versions.push(cli.json(&["branch", "list-versions", &branch.name])?);
        let Branch { id, name, head_version, origin, created_at, deleted_at, epoch, .. } = branch;
        let idle = branch.idle_timeout;
        stable.push(serde_json::json!([
            id,
            name,
            head_version,
            origin,
            created_at,
            deleted_at,
            epoch,
            idle
        ]));
    }
    Ok(Seen { projects: cli.json(&["project", "list"])?, versions, branches: stable })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_catalog_is_made_again_from_the_store() -> Result<()> {
    let mut server = Server::start()?;
    server.project("shop")?;
    let cli = server.cli();
    let dev = server.branch("dev", &["--empty", "--idle-timeout", "never"])?;
    let client = driver::connect(&dev.uri).await?;
    insert(&client, "one").await?;
    let first: Version = cli.json(&["branch", "snapshot", "dev", "--label", "first"])?;
    insert(&client, "two").await?;
    cli.run(&["branch", "suspend", "--wait", "dev"])?;
    cli.run(&["branch", "pin", &first.id])?;
    cli.run(&["project", "retention", "shop", "--keep-last", "7", "--keep-for", "forever"])?;
    server.branch("gone", &["--from", "dev@first"])?;
    cli.run(&["branch", "delete", "gone"])?;
    let awake = server.branch("awake", &["--from", "dev"])?;
    insert(&driver::connect(&awake.uri).await?, "acknowledged").await?;
    let before = seen(&server)?;

    let data_dir = server.data_dir().to_owned();
    refused(&data_dir, &["--from-store"], &["is in use", "stop that server first"])?;
    server.kill()?;
    lose_the_catalog(&data_dir)?;
    assert!(server.start_again().is_err(), "it does not start with nothing as if nothing was");
    assert!(server.log().contains("the catalog of this data directory was lost"));
    assert!(server.log().contains("hint: `argon repair --from-store`"));

    let output = repair(&data_dir, &["--from-store", "--json"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(found["branches"], 2);
    assert_eq!(found["deleted_branches"], 1);
    assert_eq!(found["pinned_versions"], 1);
    assert_eq!(found["unsaved"], serde_json::json!(["shop/awake"]));
    assert_eq!(found["notes"], serde_json::json!([]));
    refused(&data_dir, &["--from-store"], &["has 1 projects and 3 branches"])?;

    server.start_again()?;
    let awake = driver::connect(&server.show("awake")?.uri).await?;
    assert_eq!(changes(&awake).await?, ["one", "two", "acknowledged"]);
    // But for what the life that was cut off changed since.
    let mut after = seen(&server)?;
    for (now, then) in after.versions.iter_mut().zip(&before.versions) {
        now.truncate(then.len());
    }
    let without_awake = |seen: &[Value]| -> Vec<_> {
        seen.iter().filter(|branch| branch[1] != "awake").cloned().collect()
    };
    assert_eq!(without_awake(&after.branches), without_awake(&before.branches));
    assert_eq!((after.projects, after.versions), (before.projects, before.versions));

    let cli = server.cli();
    cli.run(&["branch", "time-travel", "old", "--from-branch", "dev", "--label", "first"])?;
    cli.run(&["branch", "undelete", "gone"])?;
    for (name, holds) in [("old", &["one"][..]), ("gone", &["one"]), ("dev", &["one", "two"])] {
        let client = driver::connect(&server.show(name)?.uri).await?;
        assert_eq!(changes(&client).await?, holds, "{name}");
    }
    server.branch("new", &[])?;
    Ok(())
}

#[test]
fn damage_is_named_and_left_out_only_on_request() -> Result<()> {
    let mut server = Server::start()?;
    server.project("shop")?;
    let broken = server.branch("broken", &["--empty"])?;
    server.branch("whole", &["--empty"])?;
    let hurt = server.branch("hurt", &["--empty"])?;
    let older: Version = server.cli().json(&["branch", "snapshot", "hurt"])?;
    let head: Version = server.cli().json(&["branch", "snapshot", "hurt"])?;
    let data_dir = server.data_dir().to_owned();
    server.stop(libc::SIGTERM)?;
    lose_the_catalog(&data_dir)?;
    let store = data_dir.join("store");
    fs::write(store.join("heads").join(&broken.id), "junk")?;
    fs::remove_file(store.join("versions").join(&head.id))?;

    let says = [&*format!("heads/{} is damaged", broken.id), &head.id, "--keep-going"];
    refused(&data_dir, &["--from-store"], &says)?;
    assert!(server.start_again().is_err());
    let output = repair(&data_dir, &["--from-store", "--keep-going"])?;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success() && stdout.contains("branches 2"), "{stdout}{stderr}");
    assert!(stderr.contains(&broken.id) && stderr.contains(&head.id), "{stderr}");

    server.start_again()?;
    server.cli().run(&["branch", "resume", "whole"])?;
    let failure = server.cli().fail(&["branch", "resume", "hurt"])?;
    assert!(failure.stderr.contains(&head.id), "{}", failure.stderr);
    assert_eq!(server.show("hurt")?.id, hurt.id);
    server.branch("saved", &["--from", &format!("hurt@{}", older.id)])?;
    server.cli().run(&["branch", "resume", "saved"])?;
    Ok(())
}

#[test]
fn a_new_machine_takes_up_what_the_store_has() -> Result<()> {
    let mut server = Server::start()?;
    server.project("shop")?;
    server.branch("dev", &["--empty"])?;
    server.cli().run(&["branch", "snapshot", "dev", "--label", "kept"])?;
    let before = seen(&server)?;
    server.stop(libc::SIGTERM)?;
    let setup = Setup::new()?;
    let data_dir = setup.home().join("data");
    fs::create_dir(&data_dir)?;
    fs::rename(server.data_dir().join("store"), data_dir.join("store"))?;
    let other = setup.start()?;
    assert_eq!(seen(&other)?, before);
    assert!(other.log().contains("it was filled with what the store has"), "{}", other.log());
    Ok(())
}

#[test]
fn a_repair_needs_a_store_and_says_what_it_is_to_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("argon.toml"), "")?;
    let data_dir = folder.path().join("data");
    refused(&data_dir, &["--from-store"], &["nothing to rebuild from"])?;
    fs::write(data_dir.join("catalog.sqlite"), "no database ".repeat(100))?;
    refused(&data_dir, &["--from-store"], &["not a catalog", "move that file away"])?;
    let output = repair(&data_dir, &[])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr)?.contains("--from-store"));
    Ok(())
}
