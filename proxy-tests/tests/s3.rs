//! Argon with its store in a bucket: what users see of it, and of a bucket that is away, full or
//! forbidden.

use std::fs;

use anyhow::{Context, Result};
use argon_admin::types::{Branch, BranchState, Status};
use proxy_tests::answers::Answers;
use proxy_tests::buckets::{ACCESS_KEY, BUCKET, Buckets, SECRET_KEY};
use proxy_tests::driver;
use proxy_tests::scenario::{self, changes, insert};
use proxy_tests::server::Setup;
use proxy_tests::steps::Steps;
use proxy_tests::tamper::Tamper;
use proxy_tests::wait::eventually_async;

fn setup(endpoint: &str) -> Result<Setup> {
    let setup = Setup::new()?.arguments(&["--s3-endpoint", endpoint, "--s3-prefix", "tests/one"]);
    Ok(setup
        .variable("S3_BUCKET", BUCKET)
        .variable("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .variable("AWS_DEFAULT_REGION", "eu-central-1"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_scenario_holds_with_a_bucket() -> Result<()> {
    let Some(moto) = Buckets::moto("the demo scenario with a bucket")? else { return Ok(()) };
    let server = setup(&moto.endpoint())?.start()?;
    let mut steps = Steps::default();
    scenario::run(&server, &mut steps).await?;
    let status: Status = server.cli().json(&["status"])?;
    let wanted = format!("s3://{BUCKET}/tests/one at {}", moto.endpoint());
    assert_eq!(status.store, wanted);
    assert!(!server.data_dir().join("store").exists(), "nothing is kept in the data directory");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_branch_needs_nothing_of_the_local_disk_but_the_catalog() -> Result<()> {
    let Some(moto) = Buckets::moto("a lost disk with a bucket")? else { return Ok(()) };
    let mut server = setup(&moto.endpoint())?.start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &[])?;
    let client = driver::connect(&dev.uri).await?;
    insert(&client, "before").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    server.kill()?;
    for entry in fs::read_dir(server.data_dir())? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("catalog.sqlite") {
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
    }
    server.start_again()?;
    let dev = server.show("dev")?;
    let client = driver::connect(&dev.uri).await?;
    assert_eq!(changes(&client).await?, ["before"]);
    Ok(())
}

/// The store is cut off while a branch runs: the branch goes on, its save waits and says why, and
/// is done when the store is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_go_on_while_the_store_is_away_and_are_saved_later() -> Result<()> {
    let Some(moto) = Buckets::moto("a store that is away")? else { return Ok(()) };
    let between = Tamper::before(&moto.address)?;
    let server = setup(&between.endpoint())?.start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &[])?;
    let client = driver::connect(&dev.uri).await?;
    insert(&client, "before").await?;
    between.cut();
    insert(&client, "while it is away").await?;
    let cli = server.cli();
    let suspend =
        tokio::task::spawn_blocking(move || cli.output(&["branch", "suspend", "--wait", "dev"]));
    server.until("dev", |now| now.error.is_some() && now.state != BranchState::Suspended).await?;
    let error = server.show("dev")?.error.context("it says why")?;
    assert!(error.contains("cannot be reached"), "{error}");
    between.mend();
    suspend.await??;
    let suspended = || async {
        let output = server.cli().output(&["branch", "suspend", "--wait", "dev"])?;
        Ok(output.status.success().then_some(()))
    };
    eventually_async("dev is saved", suspended).await?;
    assert_eq!(server.show("dev")?.state, BranchState::Suspended);
    assert_eq!(changes(&client).await?, ["before", "while it is away"]);
    Ok(())
}

/// Nothing local is thrown away before its upload is confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_takes_nothing_costs_no_write() -> Result<()> {
    let Some(moto) = Buckets::moto("a full bucket")? else { return Ok(()) };
    let between = Tamper::before(&moto.address)?;
    let mut server = setup(&between.endpoint())?.start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &[])?;
    let client = driver::connect(&dev.uri).await?;
    let mut written = Vec::new();
    for (status, code, words) in [
        ("507 Insufficient Storage", "XMinioStorageFull", "no space left"),
        ("403 Forbidden", "AccessDenied", "does not allow to"),
        ("400 Bad Request", "ExpiredToken", "credentials for the store have expired"),
    ] {
        insert(&client, code).await?;
        written.push(code);
        between.refuse(status, code);
        server.cli().output(&["branch", "suspend", "--wait", "dev"])?;
        let says = |now: &Branch| now.error.as_ref().is_some_and(|error| error.contains(words));
        let unsaved = server.until("dev", says).await?;
        assert_ne!(unsaved.state, BranchState::Suspended);
        between.mend();
        let suspended = || async {
            let output = server.cli().output(&["branch", "suspend", "--wait", "dev"])?;
            Ok(output.status.success().then_some(()))
        };
        eventually_async("dev is saved", suspended).await?;
        assert_eq!(changes(&client).await?, written);
    }
    // Nor does a server that is killed while its bucket takes nothing.
    insert(&client, "last").await?;
    written.push("last");
    between.refuse("507 Insufficient Storage", "XMinioStorageFull");
    server.cli().output(&["branch", "suspend", "--wait", "dev"])?;
    server.kill()?;
    between.mend();
    server.start_again()?;
    let client = driver::connect(&server.show("dev")?.uri).await?;
    assert_eq!(changes(&client).await?, written);
    Ok(())
}

#[test]
fn a_bucket_that_cannot_be_used_is_named_at_the_start() -> Result<()> {
    let refused = |endpoint: &str, words: &[&str]| -> Result<()> {
        let (code, said) = setup(endpoint)?.fail()?;
        assert_eq!(code, Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "expected `{word}` in\n{said}");
        }
        assert!(said.contains("\nhint: "), "{said}");
        Ok(())
    };
    for (status, code, words) in [
        ("400 Bad Request", "ExpiredToken", "the credentials for the store have expired"),
        ("403 Forbidden", "InvalidAccessKeyId", "no credentials that the store accepts"),
        ("403 Forbidden", "AccessDenied", "the store does not allow to list"),
        ("404 Not Found", "NoSuchBucket", "bucket argon-test does not exist"),
    ] {
        let answers = Answers::always(status, code)?;
        refused(&answers.endpoint(), &["the store s3://argon-test/tests/one at", words])?;
    }
    let Some(moto) = Buckets::moto("a server that ignores conditions")? else { return Ok(()) };
    let careless = Tamper::before(&moto.address)?;
    careless.hide_conditions();
    refused(
        &careless.endpoint(),
        &["cannot be shared by servers: a write with If-None-Match replaced", "--single-writer"],
    )?;
    let server = setup(&careless.endpoint())?.arguments(&["--single-writer"]).start()?;
    let status: Status = server.cli().json(&["status"])?;
    assert!(status.store.ends_with(", for one writer alone"), "{}", status.store);
    assert!(server.log().contains("relies on being the only one"), "{}", server.log());
    server.project("demo")?;
    server.branch("dev", &[])?;
    Ok(())
}
