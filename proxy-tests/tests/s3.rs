//! Argon with its store in a bucket: what users see of it, and of a bucket that is away, full or
//! forbidden.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use argon_admin::types::{Branch, BranchState, Status};
use proxy_tests::answers::Answers;
use proxy_tests::buckets::{ACCESS_KEY, BUCKET, Buckets, REGION, SECRET_KEY};
use proxy_tests::careless::Careless;
use proxy_tests::driver;
use proxy_tests::metadata;
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
        .variable("AWS_DEFAULT_REGION", REGION))
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

/// What is uploaded when a branch goes to sleep was sealed while it ran: what came after is not in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_sleeps_before_its_version_is_uploaded_keeps_what_it_wrote_since()
-> Result<()> {
    let Some(moto) = Buckets::moto("a sleep during an upload")? else { return Ok(()) };
    let between = Tamper::before(&moto.address)?;
    let server = setup(&between.endpoint())?.start()?;
    server.project("demo")?;
    let dev = server.branch("dev", &["--empty", "--snapshot-every", "off"])?;
    let client = driver::connect(&dev.uri).await?;
    let mut texts = vec!["before".to_owned()];
    insert(&client, &texts[0]).await?;
    between.delay(Duration::from_secs(2));
    let cli = server.cli();
    let snapshot = tokio::task::spawn_blocking(move || cli.run(&["branch", "snapshot", "dev"]));
    // The seal takes milliseconds, and the upload of what it holds some requests.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        texts.push(format!("meanwhile {}", texts.len()));
        insert(&client, &texts[texts.len() - 1]).await?;
    }
    server.cli().run(&["branch", "suspend", "dev"])?;
    ensure!(!snapshot.is_finished(), "the upload was too fast to be slept through");
    between.delay(Duration::ZERO);
    snapshot.await??;
    server.until("dev", |branch| branch.state == BranchState::Suspended).await?;
    assert_eq!(changes(&client).await?, texts);
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

fn refused(endpoint: &str, words: &[&str]) -> Result<()> {
    let (code, said) = setup(endpoint)?.fail()?;
    assert_eq!(code, Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "expected `{word}` in\n{said}");
    }
    assert!(said.contains("\nhint: "), "{said}");
    Ok(())
}

#[test]
fn a_bucket_that_cannot_be_used_is_named_at_the_start() -> Result<()> {
    for (status, code, words) in [
        ("400 Bad Request", "ExpiredToken", "the credentials for the store have expired"),
        ("403 Forbidden", "InvalidAccessKeyId", "no credentials that the store accepts"),
        ("403 Forbidden", "AccessDenied", "the store does not allow to list"),
        ("404 Not Found", "NoSuchBucket", "bucket argon-test does not exist"),
    ] {
        let answers = Answers::always(status, code)?;
        refused(&answers.endpoint(), &["the store s3://argon-test/tests/one at", words])?;
    }
    Ok(())
}

/// Refused as it is; where it has one writer alone, a branch goes all the way: made, written,
/// suspended, woken, gone back to, and what is dead of it collected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_conditions_is_refused_or_serves_one_writer_alone() -> Result<()> {
    let Some(careless) = Careless::start("a server that ignores conditions")? else {
        return Ok(());
    };
    refused(
        &careless.endpoint(),
        &["cannot be shared by servers: a write with If-None-Match replaced", "--single-writer"],
    )?;
    let alone = ["--single-writer", "--gc-min-age", "1ms", "--gc-interval", "never"];
    let mut server = setup(&careless.endpoint())?.arguments(&alone).start()?;
    let status: Status = server.cli().json(&["status"])?;
    assert!(status.store.ends_with(", for one writer alone"), "{}", status.store);
    assert!(server.log().contains("relies on being the only one"), "{}", server.log());
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &[])?.uri).await?;
    insert(&client, "first").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let first = server.show("dev")?.head_version;
    insert(&client, "second").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    assert_eq!(changes(&client).await?, ["first", "second"]);

    server.stop(libc::SIGTERM)?;
    server.start_again()?;
    let client = driver::connect(&server.show("dev")?.uri).await?;
    assert_eq!(changes(&client).await?, ["first", "second"]);
    let old = server.branch("old", &["--from", &format!("dev@{first}")])?;
    let old_client = driver::connect(&old.uri).await?;
    assert_eq!(changes(&old_client).await?, ["first"]);
    insert(&old_client, "another way").await?;
    for verb in ["suspend", "delete", "purge"] {
        server.cli().run(&["branch", verb, "old"])?;
    }
    for _ in 0..2 {
        server.cli().run(&["gc"])?;
    }
    server.cli().run(&["scrub"])?;
    assert_eq!(changes(&client).await?, ["first", "second"]);
    Ok(())
}

/// s3s-fs checks them: a server that starts has found the right ones.
#[test]
fn credentials_are_those_of_a_profile_or_of_the_machines_role() -> Result<()> {
    let Some(s3s) = Buckets::s3s_fs("credentials of profiles and roles")? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let [credentials, config] = ["credentials", "config"].map(|name| folder.path().join(name));
    let bare = || -> Result<Setup> {
        let arguments = ["--s3-endpoint", &s3s.endpoint(), "--single-writer"];
        let setup = Setup::new()?.arguments(&arguments).variable("S3_BUCKET", BUCKET);
        let setup = setup.variable("AWS_SHARED_CREDENTIALS_FILE", &credentials);
        Ok(setup.variable("AWS_CONFIG_FILE", &config))
    };
    let key =
        |id: &str| format!("aws_access_key_id = {id}\naws_secret_access_key = {SECRET_KEY}\n");
    fs::write(&credentials, format!("[default]\n{}[team]\n{}", key("NOBODY"), key(ACCESS_KEY)))?;
    let profile = |name| Ok::<_, anyhow::Error>(bare()?.variable("AWS_PROFILE", name));
    profile("team")?.variable("AWS_EC2_METADATA_DISABLED", "true").start()?;
    let (code, said) = profile("default")?.fail()?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no credentials that the store accepts"), "{said}");

    fs::remove_file(&credentials)?;
    let service = metadata::serve(ACCESS_KEY, SECRET_KEY)?;
    bare()?.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service).start()?;
    // Its region counts where no endpoint is named; only the SDK knows here that there is one.
    fs::write(&config, format!("[default]\nendpoint_url = {}\n", s3s.endpoint()))?;
    let amazon = Setup::new()?.arguments(&["--s3-addressing", "path", "--single-writer"]);
    amazon
        .variable("S3_BUCKET", BUCKET)
        .variable("AWS_CONFIG_FILE", &config)
        .variable("AWS_SHARED_CREDENTIALS_FILE", &credentials)
        .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service)
        .start()?;
    fs::remove_file(&config)?;
    let service = metadata::serve(ACCESS_KEY, "another")?;
    let (code, said) = bare()?.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service).fail()?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no credentials that the store accepts"), "{said}");
    Ok(())
}
