//! The server is killed at every named step of what it does with a branch. After a restart the
//! branch is in a legal state, every version of it is whole, and every acknowledged write is there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use argon_admin::types::{Branch, BranchState, Version};
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use proxy_tests::driver;
use proxy_tests::machine::repository;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually_async;

const SUSPEND: [&str; 8] = [
    "suspend.stopped",
    "suspend.sealed",
    "suspend.packs",
    "suspend.version",
    "suspend.rebased",
    "suspend.head",
    "suspend.row",
    "suspend.clear",
];
const RESUME: [&str; 4] = ["resume.claim", "resume.restored", "resume.started", "resume.row"];
const CREATE: [&str; 2] = ["create.head", "create.row"];
const CHANGE: [&str; 1] = ["change.head"];
const DELETE: [&str; 4] = ["suspend.version", "suspend.head", "delete.head", "delete.row"];
const BACK: [&str; 3] = ["undelete.head", "purge.head", "purge.row"];
/// `gc.some` is passed when versions are deleted, and again after pages and packs.
const GC: [&str; 5] = ["gc.condemned", "gc.some:1", "gc.some:2", "gc.some:3", "gc.deleted"];
/// Of two versions that need what is rewritten, none, one or both have been moved.
const REWRITE: [&str; 5] = ["gc.copying", "gc.copied", "gc.moved:1", "gc.moved:2", "gc.rewritten"];
const RESCUE: [&str; 4] = ["rescue.version", "rescue.head", "rescue.branch", "rescue.row"];

/// In containers: `docker_images` stops at these.
const UPGRADE: [&str; 2] = ["upgrade.version", "upgrade.head"];

/// A server, and what was acknowledged on its branch `dev`.
struct Scene {
    server: Server,
    acknowledged: Vec<String>,
}

impl Scene {
    async fn new() -> Result<Self> {
        let garbage = ["--gc-min-age", "1ms", "--gc-interval", "never"];
        let server = Setup::new()?.arguments(&garbage).start()?;
        server.project("demo")?;
        server.branch("dev", &["--empty"])?;
        let mut scene = Self { server, acknowledged: Vec::new() };
        scene.write("at first").await?;
        scene.server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        scene.server.stop(libc::SIGTERM)?;
        Ok(scene)
    }

    async fn write(&mut self, text: &str) -> Result<()> {
        let client = driver::connect(&self.server.show("dev")?.uri).await?;
        insert(&client, text).await?;
        self.acknowledged.push(text.to_owned());
        Ok(())
    }

    fn arm(&mut self, step: &str) -> Result<()> {
        self.server.start_again_with("ARGON_FAILPOINT", step)
    }

    /// Asks for something on which the armed server dies, and starts another.
    fn die(&mut self, arguments: &[&str]) -> Result<()> {
        self.server.cli().fail(arguments)?;
        self.back_from_the_dead()
    }

    fn back_from_the_dead(&mut self) -> Result<()> {
        let status = self.server.until_ended()?;
        ensure!(status.signal() == Some(libc::SIGKILL), "it ended with {status}");
        self.server.start_again()
    }

    /// Everything that was acknowledged is on the branch, once.
    async fn check(&self, branch: &Branch) -> Result<()> {
        let client = driver::connect(&branch.uri).await?;
        assert_eq!(changes(&client).await?, self.acknowledged);
        Ok(())
    }

    /// Every version of `dev` holds what was acknowledged up to some moment, and later ones more.
    async fn check_versions(&self) -> Result<()> {
        let versions: Vec<Version> = self.server.cli().json(&["branch", "list-versions", "dev"])?;
        let mut before = 0;
        for (number, version) in versions.iter().enumerate() {
            let (source, name) = (format!("dev@{}", version.id), format!("old-{number}"));
            let made = self.server.branch(&name, &["--from", &source])?;
            let client = driver::connect(&made.uri).await?;
            let found = changes(&client).await.with_context(|| format!("{version:?}"))?;
            ensure!(found.len() >= before, "{version:?} lost what an earlier one has");
            assert_eq!(found, self.acknowledged[..found.len()]);
            before = found.len();
            self.server.cli().run(&["branch", "delete", &name])?;
        }
        assert_eq!(before, self.acknowledged.len(), "the newest version has everything");
        // And those that no branch of this test names.
        self.server.cli().run(&["scrub"])?;
        Ok(())
    }
}

fn awake_or_not(branch: &Branch) -> Result<()> {
    let legal = [BranchState::Suspended, BranchState::Running, BranchState::Saving];
    // Saving begins by itself after a restart, and goes through this.
    let on_the_way = [BranchState::Suspending, BranchState::Waking];
    let state = branch.state;
    ensure!(legal.contains(&state) || on_the_way.contains(&state), "{state}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_suspend() -> Result<()> {
    let mut scene = Scene::new().await?;
    for step in SUSPEND {
        scene.arm(step)?;
        scene.write(step).await?;
        scene.die(&["branch", "suspend", "--wait", "dev"]).context(step)?;
        let dev = scene.server.show("dev")?;
        awake_or_not(&dev).context(step)?;
        scene.check(&dev).await.context(step)?;
        scene.server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        assert_eq!(scene.server.show("dev")?.error, None, "{step}");
        scene.server.stop(libc::SIGTERM)?;
    }
    scene.server.start_again()?;
    scene.check_versions().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_resume() -> Result<()> {
    let mut scene = Scene::new().await?;
    for step in RESUME {
        scene.arm(step)?;
        scene.die(&["branch", "resume", "dev"]).context(step)?;
        let dev = scene.server.show("dev")?;
        awake_or_not(&dev).context(step)?;
        scene.check(&dev).await.context(step)?;
        scene.write(step).await?;
        scene.server.stop(libc::SIGTERM)?;
    }
    scene.server.start_again()?;
    scene.check_versions().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_create() -> Result<()> {
    let mut scene = Scene::new().await?;
    for step in CREATE {
        scene.arm(step)?;
        let name = step.replace('.', "-");
        let create = ["branch", "create", &name, "--from", "dev"];
        // The head follows the answer, which may have been read by then or not.
        let told = scene.server.cli().run(&create).is_ok();
        scene.back_from_the_dead().context(step)?;
        let branch = match scene.server.show(&name) {
            Ok(branch) => branch,
            // Nobody was told that it is there: its name is free.
            Err(_) if !told => scene.server.branch(&name, &["--from", "dev"])?,
            Err(error) => return Err(error.context("a branch that was acknowledged is gone")),
        };
        scene.check(&branch).await.context(step)?;
        scene.server.stop(libc::SIGTERM)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_delete() -> Result<()> {
    let mut scene = Scene::new().await?;
    for step in DELETE {
        scene.arm(step)?;
        scene.write(step).await?;
        scene.die(&["branch", "delete", "dev"]).context(step)?;
        if scene.server.show("dev").is_err() {
            scene.server.cli().run(&["branch", "undelete", "dev"])?;
        }
        scene.check(&scene.server.show("dev")?).await.context(step)?;
        scene.server.stop(libc::SIGTERM)?;
    }
    scene.server.start_again()?;
    scene.check_versions().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_settings_of_a_running_branch_are_changed() -> Result<()> {
    let mut scene = Scene::new().await?;
    for step in CHANGE {
        scene.arm(step)?;
        scene.write(step).await?;
        scene.die(&["branch", "set", "dev", "--snapshot-every", "7s"]).context(step)?;
        // What the head says holds as soon as it is read.
        scene.check(&scene.server.show("dev")?).await.context(step)?;
        assert_eq!(scene.server.show("dev")?.snapshot_every.to_string(), "7s", "{step}");
        scene.server.cli().run(&["branch", "suspend", "dev", "--wait"])?;
        scene.server.stop(libc::SIGTERM)?;
    }
    scene.server.start_again()?;
    scene.check_versions().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_a_deleted_branch_is_brought_back_or_purged() -> Result<()> {
    let mut scene = Scene::new().await?;
    for step in BACK {
        scene.server.start_again()?;
        scene.server.branch("doomed", &["--from", "dev"])?;
        scene.server.cli().run(&["branch", "delete", "doomed"])?;
        scene.server.stop(libc::SIGTERM)?;
        scene.arm(step)?;
        let verb = step.split('.').next().context("a step has a verb")?;
        scene.die(&["branch", verb, "doomed"]).context(step)?;
        if verb == "undelete" {
            if scene.server.show("doomed").is_err() {
                scene.server.cli().run(&["branch", "undelete", "doomed"])?;
            }
            scene.check(&scene.server.show("doomed")?).await.context(step)?;
            scene.server.cli().run(&["branch", "delete", "doomed"])?;
        }
        // Purged, or it can be now.
        let deleted: Vec<Branch> = scene.server.cli().json(&["branch", "list", "--deleted"])?;
        for branch in deleted {
            scene.server.cli().run(&["branch", "purge", &branch.id])?;
        }
        scene.server.stop(libc::SIGTERM)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_garbage_collection() -> Result<()> {
    let mut scene = Scene::new().await?;
    scene.server.start_again()?;
    for step in GC {
        let gone = driver::connect(&scene.server.branch("gone", &["--from", "dev"])?.uri).await?;
        insert(&gone, "garbage").await?;
        for verb in ["suspend", "delete", "purge"] {
            scene.server.cli().run(&["branch", verb, "gone"])?;
        }
        scene.server.cli().run(&["gc"])?;
        scene.server.stop(libc::SIGTERM)?;
        scene.arm(step)?;
        scene.die(&["gc"]).context(step)?;
        scene.server.cli().run(&["scrub"]).context(step)?;
        scene.check(&scene.server.show("dev")?).await.context(step)?;
        scene.write(step).await?;
        scene.server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        scene.server.cli().run(&["gc"])?;
    }
    scene.check_versions().await
}

/// Each time around, the bulk of what one version wrote is gone from the two after it, which need a
/// little of the same packs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_rewriting_packs() -> Result<()> {
    let mut scene = Scene::new().await?;
    scene.server.start_again()?;
    let rules = ["project", "retention", "demo", "--keep-last", "2", "--keep-for", "1ms"];
    scene.server.cli().run(&rules)?;
    for (round, step) in REWRITE.into_iter().enumerate() {
        let client = driver::connect(&scene.server.show("dev")?.uri).await?;
        let database = client.database("packs");
        let bulk = database.collection::<Document>("bulk");
        let little = database.collection::<Document>(&format!("little-{round}"));
        let noise = Binary { subtype: BinarySubtype::Generic, bytes: noise(round, 4_000_000) };
        bulk.insert_one(doc! { "noise": noise }).await?;
        little.insert_one(doc! { "round": round as i64 }).await?;
        scene.server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        bulk.drop().await?;
        for half in ["first", "second"] {
            scene.write(&format!("{step}, the {half}")).await?;
            scene.server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        }
        scene.server.stop(libc::SIGTERM)?;
        scene.arm(step)?;
        scene.die(&["gc"]).context(step)?;
        scene.server.cli().run(&["scrub"]).context(step)?;
        scene.check(&scene.server.show("dev")?).await.context(step)?;
        let client = driver::connect(&scene.server.show("dev")?.uri).await?;
        let kept = client.database("packs").list_collection_names().await?;
        assert_eq!(kept.len(), round + 1, "{step}: {kept:?}");
        scene.server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        // The rest of it, and what it left behind.
        for _ in 0..3 {
            scene.server.cli().run(&["gc"]).context(step)?;
        }
        scene.server.cli().run(&["scrub"]).context(step)?;
    }
    scene.check_versions().await
}

/// Bytes that no compression makes less, others for each seed.
fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let step = |_| {
        // Knuth's MMIX.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(step).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_writes_of_a_lost_branch_are_brought_to_safety() -> Result<()> {
    let store = tempfile::Builder::new().prefix("store-").tempdir()?;
    let shared = store.path().to_string_lossy();
    // Longer than a busy machine takes to renew it, so that the second server keeps its own.
    let start = || Setup::new()?.arguments(&["--store-dir", &shared, "--lease-ttl", "3s"]).start();
    let (mut first, second) = (start()?, start()?);
    first.project("demo")?;
    for step in RESCUE {
        let name = step.replace('.', "-");
        let client = driver::connect(&first.branch(&name, &["--empty"])?.uri).await?;
        insert(&client, "unsaved").await?;
        drop(client);
        first.kill()?;
        let why = Mutex::new(None);
        let taken = || async {
            let Ok(branch) = second.show(&name) else { return Ok(None) };
            let client = driver::connect(&branch.uri).await?;
            let written = insert(&client, "by the second server").await;
            Ok(written.map_err(|error| why.lock().unwrap().replace(error)).ok())
        };
        let taken = eventually_async("the second server takes it over", taken).await;
        taken.with_context(|| format!("{step}: {why:?}\n{}", second.log()))?;

        // It finds out as soon as it tries to save, and dies of that.
        first.start_again_with("ARGON_FAILPOINT", step)?;
        let status = first.until_ended().context(step)?;
        ensure!(status.signal() == Some(libc::SIGKILL), "{step}: it ended with {status}");
        first.start_again()?;
        let rescued = format!("{name}-rescued-1");
        let known = || async { Ok(first.show(&rescued).ok()) };
        let branch = eventually_async(format!("{rescued} is there"), known).await?;
        let client = driver::connect(&branch.uri).await?;
        assert_eq!(changes(&client).await?, ["unsaved"], "{step}");
        let settled = |branch: &Branch| branch.state == BranchState::Suspended;
        first.until(&name, settled).await.context(step)?;
        second.cli().run(&["branch", "suspend", "--wait", &name])?;
        let client = driver::connect(&first.show(&name)?.uri).await?;
        assert_eq!(changes(&client).await?, ["by the second server"], "{step}");
        first.cli().run(&["branch", "suspend", "--wait", &name])?;
        let branches: Vec<Branch> = first.cli().json(&["branch", "list"])?;
        let of_it = branches.iter().filter(|branch| branch.name.starts_with(&name)).count();
        assert_eq!(of_it, 2, "{step}: it is rescued once: {branches:?}");
    }
    Ok(())
}

/// Every step that the server names is one that a test above stops at.
#[test]
fn no_step_is_forgotten() -> Result<()> {
    let mut named = BTreeSet::new();
    collect(&repository().join("src"), &mut named)?;
    let tested =
        [&SUSPEND[..], &RESUME, &CREATE, &CHANGE, &DELETE, &BACK, &GC, &REWRITE, &RESCUE, &UPGRADE]
            .concat();
    let name = |step: &str| step.split(':').next().map(str::to_owned);
    let tested = tested.into_iter().filter_map(name).collect();
    assert_eq!(named, tested);
    Ok(())
}

fn collect(folder: &Path, into: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else {
            let text = fs::read_to_string(&path)?;
            let steps = text.split("failpoint(\"").skip(1);
            into.extend(steps.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    Ok(())
}
