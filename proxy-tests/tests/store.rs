//! The S3 store against real servers: one suite for every kind of store, and what only S3 has.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use argon::base::clock::Timestamp;
use argon::store::probe::{Breach, Conditions, probe};
use argon::store::{
    Condition, Credentials, ETag, Key, S3Limits, S3Settings, S3Store, SingleWriter, Store,
    StoreError, suite,
};
use proxy_tests::answers::Answers;
use proxy_tests::buckets::{ACCESS_KEY, BUCKET, Buckets, SECRET_KEY};
use proxy_tests::careless::Careless;
use proxy_tests::tamper::Tamper;

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);

fn settings(endpoint: &str) -> S3Settings {
    let credentials =
        Credentials::Given { id: ACCESS_KEY.to_owned(), secret: SECRET_KEY.to_owned() };
    // Servers that were built to be had quickly, on a machine that does other things too.
    let (attempt, deadline) = (Duration::from_secs(60), Duration::from_secs(120));
    let limits = S3Limits { attempt, deadline, ..S3Limits::default() };
    S3Settings { credentials, limits, ..S3Settings::new(BUCKET, Some(endpoint)) }
}

async fn open(settings: S3Settings) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(S3Store::open(settings).await?))
}

fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_on_moto_and_below_a_prefix() -> Result<()> {
    let Some(moto) = Buckets::moto("the suite of stores on moto")? else { return Ok(()) };
    let store = open(settings(&moto.endpoint())).await?;
    store.write(&key("outside"), "x".into(), Condition::Absent).await?;
    let prefix = "team/Argon".parse().expect("a prefix");
    let below = S3Settings { prefix, ..settings(&moto.endpoint()) };
    suite::all(open(below).await?).await;
    assert_eq!(store.list("", None).await?.len(), 1);
    assert_eq!(probe(&store, NOW).await?, Conditions::Kept);
    assert_eq!(store.list("", None).await?.len(), 1, "the probe leaves nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s3s_fs_lets_several_win_and_serves_one_writer_alone() -> Result<()> {
    let Some(s3s) = Buckets::s3s_fs("the suite of stores on s3s-fs")? else { return Ok(()) };
    let store = open(settings(&s3s.endpoint())).await?;
    let found = probe(&store, NOW).await?;
    assert!(matches!(found, Conditions::Broken(_)), "{found:?}");
    let single: Arc<dyn Store> = Arc::new(SingleWriter::new(store));
    assert_eq!(probe(&single, NOW).await?, Conditions::Kept);
    suite::most(single).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_conditions_is_recognised_and_serves_one_writer_alone() -> Result<()>
{
    let Some(careless) = Careless::start("a server that ignores conditions")? else {
        return Ok(());
    };
    let store = open(settings(&careless.endpoint())).await?;
    assert_eq!(probe(&store, NOW).await?, Conditions::Broken(Breach::IgnoresAbsent));
    let single: Arc<dyn Store> = Arc::new(SingleWriter::new(store));
    assert_eq!(probe(&single, NOW).await?, Conditions::Kept);
    suite::most(single).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_was_lost_finds_its_own_object() -> Result<()> {
    let Some(moto) = Buckets::moto("lost answers")? else { return Ok(()) };
    let between = Tamper::before(&moto.address)?;
    let store = open(settings(&between.endpoint())).await?;
    let name = key("heads/a");
    between.lose_answers(1);
    let first = store.write(&name, "same".into(), Condition::Absent).await?;
    assert_eq!(between.lost(), 1);
    assert_eq!(store.read(&name).await?.etag, first);
    between.lose_answers(2);
    let second = store.write(&name, "other".into(), Condition::Matches(first.clone())).await?;
    assert_eq!(between.lost(), 3);
    assert_eq!(store.read(&name).await?.etag, second);

    // Another's object with the very same bytes is no success.
    between.lose_answers(1);
    let absent = store.write(&name, "other".into(), Condition::Absent).await;
    assert!(matches!(absent, Err(StoreError::Conflict { .. })), "{absent:?}");
    between.lose_answers(1);
    let stale = store.write(&name, "other".into(), Condition::Matches(first)).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");

    // A large file: the answers to its beginning, a part, and its end.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    std::fs::write(&file, vec![7; 40_000_000])?;
    for _ in 0..4 {
        between.lose_answers(1);
        store.write_file(&name, &file).await?;
        assert_eq!(store.size(&name).await?, 40_000_000);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_digests_and_restarts_hold_on_s3s_fs() -> Result<()> {
    let Some(mut s3s) = Buckets::s3s_fs("credentials and restarts")? else { return Ok(()) };
    let name = key("a/b");
    for (id, secret) in [(ACCESS_KEY, "wrong"), ("AKIANOBODY", SECRET_KEY)] {
        let credentials = Credentials::Given { id: id.to_owned(), secret: secret.to_owned() };
        let store = open(S3Settings { credentials, ..settings(&s3s.endpoint()) }).await?;
        let error = store.list("", None).await.expect_err("it is refused");
        assert!(matches!(error, StoreError::NoCredentials { .. }), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("AWS_SECRET_ACCESS_KEY")));
        let error =
            store.write(&name, "x".into(), Condition::Always).await.expect_err("so is this");
        assert!(error.to_string().contains("write a/b in bucket argon-test"), "{error}");
    }
    let store = open(settings(&s3s.endpoint())).await?;
    let tag = store.write(&name, "kept".into(), Condition::Absent).await?;
    s3s.kill()?;
    let impatient = S3Limits { deadline: Duration::from_millis(500), ..S3Limits::default() };
    let away = open(S3Settings { limits: impatient, ..settings(&s3s.endpoint()) }).await?;
    let error = away.read(&name).await.expect_err("nobody is there");
    assert!(matches!(error, StoreError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    // A store that is patient waits until the server is back.
    let (read, started) = tokio::join!(store.read(&name), async { s3s.start_again() });
    started?;
    assert_eq!(read?.bytes, "kept");
    store.write(&name, "more".into(), Condition::Matches(tag)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_missing_is_named() -> Result<()> {
    let Some(moto) = Buckets::moto("a missing bucket")? else { return Ok(()) };
    let missing = S3Settings { bucket: "no-such-bucket".into(), ..settings(&moto.endpoint()) };
    let store = open(missing).await?;
    for error in [
        store.list("", None).await.map(drop),
        store.write(&key("a"), "x".into(), Condition::Absent).await.map(drop),
        store
            .write(&key("a"), "x".into(), Condition::Matches(ETag("\"x\"".into())))
            .await
            .map(drop),
        store.read(&key("a")).await.map(drop),
    ] {
        let error = error.expect_err("there is no bucket");
        assert!(matches!(error, StoreError::NoBucket { .. }), "{error:?}");
        assert_eq!(error.to_string(), "bucket no-such-bucket does not exist");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_say_has_an_error_of_its_own() -> Result<()> {
    type Row<'a> = (&'a str, &'a str, fn(&StoreError) -> bool, &'a str);
    let rows: [Row<'_>; 5] = [
        (
            "400 Bad Request",
            "ExpiredToken",
            |e| matches!(e, StoreError::Expired { .. }),
            "the credentials for the store have expired: write packs/a in bucket argon-test",
        ),
        (
            "403 Forbidden",
            "AccessDenied",
            |e| matches!(e, StoreError::Denied { .. }),
            "the store does not allow to write packs/a in bucket argon-test",
        ),
        (
            "507 Insufficient Storage",
            "XMinioStorageFull",
            |e| matches!(e, StoreError::Full { .. }),
            "the store has no space left to write packs/a in bucket argon-test",
        ),
        (
            "403 Forbidden",
            "QuotaExceeded",
            |e| matches!(e, StoreError::Full { .. }),
            "the store has no space left to write packs/a in bucket argon-test",
        ),
        (
            "501 Not Implemented",
            "NotImplemented",
            |e| matches!(e, StoreError::Io { .. }),
            "write packs/a in bucket argon-test",
        ),
    ];
    for (status, code, is_right, text) in rows {
        let answers = Answers::always(status, code)?;
        let store = open(settings(&answers.endpoint())).await?;
        let error = store.write(&key("packs/a"), "x".into(), Condition::Absent).await;
        let error = error.expect_err("it fails");
        assert!(is_right(&error), "{error:?}");
        assert_eq!(error.to_string(), text);
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let said = format!("{} {code}: as asked", &status[..3]);
        assert!(cause.as_ref().is_some_and(|cause| cause.ends_with(&said)), "{cause:?}");
        // Expired credentials are looked for once more; nothing else is asked twice.
        assert!(answers.asked() <= 2, "{}", answers.asked());
    }
    // What may pass is tried until the deadline.
    let answers = Answers::always("503 Slow Down", "SlowDown")?;
    let limits = S3Limits { deadline: Duration::from_secs(2), ..S3Limits::default() };
    let store = open(S3Settings { limits, ..settings(&answers.endpoint()) }).await?;
    let error = store.read(&key("packs/a")).await.expect_err("it fails");
    assert!(answers.asked() > 2, "{} tries: {error:?}", answers.asked());
    Ok(())
}

/// Any other server, Amazon's own too: `docs/s3.md` says how. The bucket should be empty.
#[tokio::test(flavor = "multi_thread")]
async fn another_server_on_demand() -> Result<()> {
    let Ok(bucket) = std::env::var("ARGON_TEST_BUCKET") else { return Ok(()) };
    let endpoint = std::env::var("AWS_ENDPOINT_URL").ok();
    let prefix = "argon-suite".parse().expect("a prefix");
    let settings = S3Settings { prefix, ..S3Settings::new(&bucket, endpoint.as_deref()) };
    let store = open(settings).await?;
    let found = probe(&store, NOW).await?;
    println!("{}: {found:?}", store.describe());
    let store = match found {
        Conditions::Kept => store,
        Conditions::Broken(_) => Arc::new(SingleWriter::new(store)),
    };
    suite::most(store).await;
    Ok(())
}
