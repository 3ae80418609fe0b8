//! What nothing needs leaves the store; what is damaged is found, and never served.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use argon_admin::types::{Collected, Operation, Scrubbed, Tally, Version};
use proxy_tests::driver;
use proxy_tests::scenario::{changes, insert};
use proxy_tests::server::{Server, Setup};

fn server() -> Result<Server> {
    server_with(&[])
}

fn server_with(more: &[&str]) -> Result<Server> {
    let usual = ["--gc-min-age", "1ms", "--gc-interval", "never"];
    Setup::new()?.arguments(&usual).arguments(more).start()
}

fn objects(server: &Server, folder: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(server.data_dir().join("store").join(folder))?;
    Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_branch_leaves_the_store_in_two_runs() -> Result<()> {
    let server = server()?;
    server.project("shop")?;
    let dev = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&dev, "stays").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let before = (objects(&server, "versions")?.len(), objects(&server, "packs")?.len());
    let old = driver::connect(&server.branch("old", &["--from", "dev"])?.uri).await?;
    insert(&old, "goes").await?;
    for step in ["suspend", "delete", "purge"] {
        server.cli().run(&["branch", step, "old"])?;
    }

    let cli = server.cli();
    let dry: Collected = cli.json(&["gc", "--dry-run"])?;
    assert!(dry.dry_run && dry.condemned.versions == 1 && dry.condemned.packs == 1, "{dry:?}");
    let first: Collected = cli.json(&["gc"])?;
    assert_eq!((first.condemned, first.deleted), (dry.condemned, Tally::default()));
    assert!(first.next_at.is_some());
    let second: Collected = cli.json(&["gc"])?;
    assert_eq!((second.condemned, second.deleted), (Tally::default(), first.condemned));
    let after = (objects(&server, "versions")?.len(), objects(&server, "packs")?.len());
    assert_eq!(after, before);
    assert!(cli.run(&["gc", "--dry-run"])?.starts_with("would delete   nothing\n"));
    let told: Vec<Operation> = cli.json(&["operation", "list"])?;
    assert!(told.iter().any(|one| one.subject == "store"));
    assert_eq!(changes(&dev).await?, ["stays"]);
    assert!(cli.run(&["scrub"])?.starts_with("sound: "));
    Ok(())
}

fn flip(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    bytes[40] ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_found_and_its_branch_refuses_to_start() -> Result<()> {
    // Restored whole, so that the start needs the very block; and no cache has it.
    let server = server_with(&["--mount", "eager"])?;
    server.project("shop")?;
    let known = objects(&server, "packs")?;
    let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
    insert(&client, "precious").await?;
    server.cli().run(&["branch", "suspend", "--wait", "dev"])?;
    let pack = objects(&server, "packs")?.into_iter().find(|path| !known.contains(path));
    let pack = pack.context("the suspend wrote a pack")?;
    let name = format!("packs/{}", pack.file_name().context("a name")?.to_string_lossy());
    flip(&pack)?;

    let cli = server.cli();
    let refused = cli.fail(&["branch", "resume", "dev"])?;
    assert!(refused.stderr.contains(&format!("{name} is damaged")), "{}", refused.stderr);
    for hint in ["argon scrub", "argon branch time-travel NEW --from-branch dev"] {
        assert!(refused.stderr.contains(hint), "{}", refused.stderr);
    }
    let error = changes(&client).await.unwrap_err();
    assert!(format!("{error:#}").contains(&name), "{error:#}");

    let head = server.show("dev")?.head_version;
    let told = cli.fail(&["scrub"])?;
    assert_eq!(told.code, 1);
    for words in [&name, &head, "shop/dev"] {
        assert!(told.stdout.contains(words), "{words} in {}", told.stdout);
    }
    let told = cli.fail(&["scrub", "--json"])?;
    let found: Scrubbed = serde_json::from_str(&told.stdout)?;
    let [damage] = &found.damages[..] else { panic!("{found:?}") };
    assert_eq!((&damage.object, damage.hurts.len()), (&name, 1));
    assert_eq!(
        (&damage.hurts[0].version, &damage.hurts[0].names[..]),
        (&head, &["shop/dev".to_owned()][..])
    );
    assert!(!damage.hurts[0].files.is_empty());

    // What the hint says works.
    let versions: Vec<Version> = cli.json(&["branch", "list-versions", "dev"])?;
    let back = ["branch", "time-travel", "back", "--from-branch", "dev", "--version-id"];
    cli.run(&[&back[..], &[&versions[0].id]].concat())?;
    let client_back = driver::connect(&server.show("back")?.uri).await?;
    assert_eq!(changes(&client_back).await?, Vec::<String>::new());
    // And nothing was made worse.
    flip(&pack)?;
    cli.run(&["scrub"])?;
    cli.run(&["branch", "resume", "dev"])?;
    assert_eq!(changes(&client).await?, ["precious"]);
    Ok(())
}
