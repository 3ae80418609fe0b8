//! Getting what the drivers' programs need, for `cargo verify`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::list::{DRIVERS, node_folder, sources};
use crate::machine::succeeds;

/// Installs what is missing, where this machine lets it. What cannot be had is for the tests to
/// name; an installation that fails is an error.
pub fn install() -> Result<()> {
    // Side by side: each waits for the network most of the time.
    std::thread::scope(|scope| {
        let debian = scope.spawn(debian);
        npm()?;
        debian.join().expect("it does not panic")
    })
}

/// Debian's packages, which only root can install.
fn debian() -> Result<()> {
    let missing = DRIVERS.iter().filter(|driver| driver.missing().is_some());
    let packages: Vec<&str> = missing.flat_map(|driver| driver.debian).copied().collect();
    debian_packages(&packages)
}

/// Installs Debian's packages, where this is Debian and this user is root.
pub fn debian_packages(packages: &[&str]) -> Result<()> {
    // SAFETY: no memory is involved.
    let root = unsafe { libc::geteuid() } == 0;
    if packages.is_empty() || !root || !succeeds(Command::new("apt-get").arg("--version")) {
        return Ok(());
    }
    println!("apt-get install {packages:?}");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "DPkg::Lock::Timeout=120"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        // No service that comes with one is started: this is a run level without any.
        command.env("RUNLEVEL", "1");
        command
    };
    run(&mut apt(&["update"]))?;
    run(apt(&["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// npm's packages: exactly those of the committed lock, into a folder below `target/`.
fn npm() -> Result<()> {
    const STAMP: &str = "node_modules/installed-lock.json";
    if !succeeds(Command::new("npm").arg("--version")) {
        return Ok(());
    }
    let (from, to) = (sources().join("node"), node_folder());
    let lock = fs::read(from.join("package-lock.json")).context("read package-lock.json")?;
    if fs::read(to.join(STAMP)).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    fs::create_dir_all(&to).with_context(|| format!("make {}", to.display()))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(from.join(name), to.join(name)).with_context(|| format!("copy {name}"))?;
    }
    println!("npm ci in {}", to.display());
    // No package's own scripts: they build native parts that the programs do without.
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]);
    run(install.arg("--loglevel=error").current_dir(&to))?;
    fs::write(to.join(STAMP), lock).context("note what is installed")
}

fn run(command: &mut Command) -> Result<()> {
    // Not on stdout, which apt-get fills.
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(())
}
