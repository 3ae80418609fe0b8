//! The images of branches, on a real Docker engine: which one a branch begins with, that it stays with it,
//! and how it moves to another. All of them have the same mongod, as there is one alone for tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use argon_admin::types::{Branch, BranchState, Project, Version, WakeTrace};
use futures_util::future::join_all;
use proxy_tests::binary::argon;
use proxy_tests::docker::{Engine, IMAGE};
use proxy_tests::driver;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};
use proxy_tests::writer::{Writer, check_all_there};

/// The id of the image that a running branch is in.
fn image_of(engine: &Engine, data_dir: &Path, project: &str, branch: &str) -> Result<String> {
    let container = engine.container_of(data_dir, project, branch)?;
    engine.docker(&["inspect", "--format", "{{.Image}}", &container])
}

fn id_of(engine: &Engine, image: &str) -> Result<String> {
    engine.docker(&["inspect", "--format", "{{.Id}}", image])
}

/// What a command says that is refused, and that it says what to do next.
fn refused(server: &Server, arguments: &[&str]) -> Result<String> {
    let said = server.cli().fail(arguments)?.stderr;
    ensure!(said.contains("hint: "), "{arguments:?}: {said}");
    Ok(said)
}

/// A tag that moves, or another one: branches keep the image that wrote them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_goes_on_with_the_image_that_wrote_it() -> Result<()> {
    let Some(engine) = Engine::shared("the images of branches")? else { return Ok(()) };
    let next = "argon-tests/mongo:next";
    engine.another_image("LABEL next=1", next)?;
    let mut server = Setup::new()?.docker(&engine).arguments(&["--parked", "1"]).start()?;
    server.project("demo")?;
    let data_dir = server.data_dir().to_owned();
    let of_branch = |name: &str| image_of(&engine, &data_dir, "demo", name);
    let id_of = |image: &str| engine.docker(&["inspect", "--format", "{{.Id}}", image]);
    insert(&driver::connect(&server.branch("old-image", &["--empty"])?.uri).await?, "old").await?;
    ensure!(of_branch("old-image")? == id_of(IMAGE)?);
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());

    server.start_again_with("ARGON_IMAGE", next)?;
    let old = driver::connect(&server.show("old-image")?.uri).await?;
    ensure!(changes(&old).await? == ["old"]);
    ensure!(of_branch("old-image")? == id_of(IMAGE)?, "it runs in another image");
    let wakes: Vec<WakeTrace> = server.cli().json(&["branch", "wake-trace", "old-image"])?;
    let why = wakes[0].cold_because.clone().unwrap_or_default();
    ensure!(why.contains(&id_of(next)?) && why.contains("is parked"), "{why}");
    insert(&driver::connect(&server.branch("new-image", &["--empty"])?.uri).await?, "new").await?;
    ensure!(of_branch("new-image")? == id_of(next)?, "a new branch runs in the old image");
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    engine.docker(&["rmi", next]).map(drop)
}

/// An image of their own for the branches of a project: over restarts, and when the catalog is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_has_an_image_of_its_own() -> Result<()> {
    let Some(engine) = Engine::shared("the images of projects")? else { return Ok(()) };
    let (own, later) = ("argon-tests/mongo:own", "argon-tests/mongo:later");
    engine.another_image("LABEL own=1", own)?;
    engine.another_image("LABEL later=1", later)?;
    let mut server = Setup::new()?.docker(&engine).start()?;
    let data_dir = server.data_dir().to_owned();
    server.cli().run(&["project", "create", "plain"])?;
    server.cli().run(&["project", "create", "shop", "--image", own])?;
    let create = |server: &Server, project: &str, name: &str, more: &[&str]| -> Result<Branch> {
        let words = ["branch", "create", name, "--project", project];
        server.cli().json(&[&words[..], more].concat())
    };
    for (project, image) in [("shop", own), ("plain", IMAGE)] {
        for (name, more) in [("empty", &["--empty"][..]), ("base", &[][..])] {
            let client = driver::connect(&create(&server, project, name, more)?.uri).await?;
            insert(&client, name).await?;
            let found = image_of(&engine, &data_dir, project, name)?;
            ensure!(found == id_of(&engine, image)?, "{project}/{name} runs in {found}");
        }
    }
    let shown = server.cli().run(&["project", "list"])?;
    ensure!(shown.contains("IMAGE") && shown.contains(own), "{shown}");

    // What is there stays; what is new begins with the other one, or the server's.
    for (name, set, image) in [("plain", "default", IMAGE), ("new", later, later)] {
        server.cli().run(&["project", "image", "shop", set])?;
        let client = driver::connect(&create(&server, "shop", name, &[])?.uri).await?;
        insert(&client, name).await?;
        ensure!(image_of(&engine, &data_dir, "shop", name)? == id_of(&engine, image)?, "{name}");
    }
    server.cli().run(&["branch", "suspend", "--wait", "base", "--project", "shop"])?;
    let old: Branch = server.cli().json(&["branch", "show", "base", "--project", "shop"])?;
    ensure!(changes(&driver::connect(&old.uri).await?).await? == ["base"]);
    ensure!(image_of(&engine, &data_dir, "shop", "base")? == id_of(&engine, own)?);

    // The store knows it too.
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    for lost in ["catalog.sqlite", "catalog.sqlite-wal"] {
        std::fs::remove_file(data_dir.join(lost)).ok();
    }
    let mut repair = Command::new(argon());
    repair.args(["repair", "--from-store", "--data-dir"]).arg(&data_dir);
    ensure!(repair.status()?.success(), "the catalog is made again");
    server.start_again()?;
    let projects: Vec<Project> = server.cli().json(&["project", "list"])?;
    let of_shop = projects.iter().find(|project| project.name == "shop");
    ensure!(of_shop.is_some_and(|shop| shop.image.as_deref() == Some(later)), "{projects:?}");
    let uri = create(&server, "shop", "last", &["--empty"])?.uri;
    insert(&driver::connect(&uri).await?, "last").await?;
    ensure!(image_of(&engine, &data_dir, "shop", "last")? == id_of(&engine, later)?);

    // Nobody listens there.
    let absent = "127.0.0.1:1/absent/mongo:1";
    for (image, expected) in [(absent, "pull the image"), ("a b", "is not the name of an image")] {
        let said = refused(&server, &["project", "create", "none", "--image", image])?;
        ensure!(said.contains(expected), "{said}");
        let said = refused(&server, &["project", "image", "shop", image])?;
        ensure!(said.contains(expected), "{said}");
    }
    let projects: Vec<Project> = server.cli().json(&["project", "list"])?;
    ensure!(projects.len() == 2, "one that failed is none: {projects:?}");
    ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    engine.docker(&["rmi", own, later]).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_moves_to_another_image_when_it_is_told_to() -> Result<()> {
    let Some(engine) = Engine::shared("upgrades of branches")? else { return Ok(()) };
    let (next, broken) = ("argon-tests/mongo:upgrade", "argon-tests/mongo:broken");
    engine.another_image("LABEL upgrade=1", next)?;
    engine.another_image("ENV PATH=/nowhere", broken)?;
    for mount in ["auto", "eager"] {
        let mut server = Setup::new()?.docker(&engine).arguments(&["--mount", mount]).start()?;
        let data_dir = server.data_dir().to_owned();
        server.project("demo")?;
        let upgrade = |image| ["branch", "upgrade", "dev", "--image", image];
        let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
        insert(&client, "before").await?;
        // Under a client that writes: it waits, and goes on.
        let writer = Writer::start(&client);
        writer.until_written(10).await?;
        server.cli().run(&[&upgrade(next)[..], &["--set-fcv"]].concat())?;
        writer.until_written(10).await?;
        let acknowledged = writer.finish().await?;
        ensure!(image_of(&engine, &data_dir, "demo", "dev")? == id_of(&engine, next)?);
        check_all_there(&client, &acknowledged).await?;
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        ensure!(changes(&client).await? == ["before"]);
        ensure!(image_of(&engine, &data_dir, "demo", "dev")? == id_of(&engine, next)?, "it stays");

        // One travels back by the label, into the old image.
        let versions: Vec<Version> = server.cli().json(&["branch", "list-versions", "dev"])?;
        let label = versions.iter().find_map(|version| version.label.clone()).unwrap_or_default();
        ensure!(label.starts_with("before-upgrade-"), "{versions:?}");
        let words = ["branch", "time-travel", "old", "--from-branch", "dev", "--label", &label];
        let old: Branch = server.cli().json(&words)?;
        ensure!(changes(&driver::connect(&old.uri).await?).await? == ["before"]);
        ensure!(image_of(&engine, &data_dir, "demo", "old")? == id_of(&engine, IMAGE)?);

        // What is refused changes nothing.
        let before: Vec<Version> = server.cli().json(&["branch", "list-versions", "dev"])?;
        for (image, expected) in [
            (next, "it runs in that image already"),
            (broken, "run `mongod --version` in the image"),
            ("127.0.0.1:1/absent/mongo:1", "pull the image"),
            ("../x", "is not the name of an image"),
        ] {
            let said = refused(&server, &upgrade(image))?;
            ensure!(said.contains(expected), "{image}: {said}");
        }
        let after: Vec<Version> = server.cli().json(&["branch", "list-versions", "dev"])?;
        ensure!(before == after, "{before:?} and {after:?}");

        // Of two at once one is done, and the other has nothing left to do.
        server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
        let both = join_all([0, 1].map(|_| {
            let cli = server.cli();
            tokio::task::spawn_blocking(move || cli.run(&upgrade(IMAGE)).is_ok())
        }));
        let done: Vec<_> = both.await.into_iter().flatten().collect();
        ensure!(done == [true, false] || done == [false, true], "{done:?}");
        ensure!(changes(&client).await? == ["before"]);
        ensure!(image_of(&engine, &data_dir, "demo", "dev")? == id_of(&engine, IMAGE)?);

        server.cli().run(&["branch", "delete", "dev"])?;
        refused(&server, &upgrade(next))?;
        ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
    }
    engine.docker(&["rmi", next, broken]).map(drop)
}

/// An image whose mongod says what it is, and then does not run on data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_fails_leaves_the_branch_as_it_was() -> Result<()> {
    let Some(engine) = Engine::shared("upgrades that fail")? else { return Ok(()) };
    let (folder, image) = (tempfile::tempdir()?, "argon-tests/mongo:ends");
    let text = "#!/bin/sh\nif [ \"$1\" = --version ]; then exec /usr/bin/mongod --version; fi\n\
        echo 17 >/data/db/somebody-was-here\nexit 9\n";
    engine.image_with_program(folder.path(), text, image)?;
    let server = Setup::new()?.docker(&engine).start()?;
    server.project("demo")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "before").await?;
    for _ in 0..2 {
        let said = server.cli().fail(&["branch", "upgrade", "dev", "--image", image])?.stderr;
        ensure!(said.contains("it is as it was") && said.contains("exit code 9"), "{said}");
        let dev = server.show("dev")?;
        ensure!(dev.state == BranchState::Suspended && dev.error.is_none(), "{dev:?}");
        ensure!(changes(&client).await? == ["before"]);
        let found = image_of(&engine, server.data_dir(), "demo", "dev")?;
        ensure!(found == id_of(&engine, IMAGE)?, "it runs in {found}");
    }
    drop(server);
    engine.docker(&["rmi", "--force", image]).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_an_upgrade_leaves_the_branch_in_one_of_the_images() -> Result<()> {
    let Some(engine) = Engine::shared("upgrades that are cut off")? else { return Ok(()) };
    let next = "argon-tests/mongo:cut-off";
    engine.another_image("LABEL cut-off=1", next)?;
    for (step, image) in [("upgrade.version", IMAGE), ("upgrade.head", next)] {
        let mut server = Setup::new()?.docker(&engine).start()?;
        server.project("demo")?;
        let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
        insert(&client, "before").await?;
        ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
        server.start_again_with("ARGON_FAILPOINT", step)?;
        server.cli().fail(&["branch", "upgrade", "dev", "--image", next])?;
        server.until_ended()?;
        server.start_again()?;
        let client = driver::connect(&server.show("dev")?.uri).await?;
        ensure!(changes(&client).await? == ["before"], "{step}");
        let found = image_of(&engine, server.data_dir(), "demo", "dev")?;
        ensure!(found == id_of(&engine, image)?, "{step}: it runs in {found}");
        ensure!(server.stop(libc::SIGTERM)?.success(), "it did not drain:\n{}", server.log());
        let left = engine.containers(server.data_dir())?;
        ensure!(left.is_empty(), "{step}: containers are left: {left:?}");
    }
    engine.docker(&["rmi", next]).map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_processes_come_from_no_image() -> Result<()> {
    let server = Server::start()?;
    server.project("demo")?;
    server.branch("dev", &["--empty"])?;
    for words in [
        &["branch", "upgrade", "dev", "--image", "mongo:8.0"][..],
        &["project", "image", "demo", "mongo:8.0"],
        &["project", "create", "shop", "--image", "mongo:8.0"],
    ] {
        let said = refused(&server, words)?;
        ensure!(said.contains("mongods are local processes here"), "{words:?}: {said}");
    }
    Ok(())
}
