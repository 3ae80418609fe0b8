//! Trouble on purpose: a mongod that counts its starts, waits or fails, and a disk that fills up.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::binary::argon;
use crate::machine;

/// A script that stands in front of the real mongod. It notes each start, waits while it is told
/// to hold, and fails while it is told to.
#[derive(Debug)]
pub struct Gate {
    folder: TempDir,
}

/// What a mongod that the gate lets fail prints last.
pub const LAST_WORDS: &str = "this mongod was told not to start";

impl Gate {
    /// Made for the mongod that Argon finds by itself.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("gate-").tempdir()?;
        let real = mongod()?;
        let here = folder.path().display();
        // A path of its own for `sleep`: the server starts mongods with an empty environment.
        let script = format!(
            "#!/bin/sh\n\
             case \" $* \" in *' --version '*) exec '{real}' --version;; esac\n\
             echo start >> '{here}/starts'\n\
             while [ -e '{here}/hold' ]; do PATH=/bin:/usr/bin sleep 0.02; done\n\
             if [ -e '{here}/fail' ]; then echo '{LAST_WORDS}'; exit 14; fi\n\
             exec '{real}' \"$@\"\n",
            real = real.display(),
        );
        let gate = Self { folder };
        fs::write(gate.path(), script).context("write the gate")?;
        fs::set_permissions(gate.path(), fs::Permissions::from_mode(0o755))?;
        Ok(gate)
    }

    /// What to set ARGON_MONGOD to.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mongod")
    }

    /// How often a mongod was started so far.
    pub fn starts(&self) -> usize {
        let notes = fs::read_to_string(self.folder.path().join("starts"));
        notes.unwrap_or_default().lines().count()
    }

    /// From now on starts wait, until what this gives is dropped.
    pub fn hold(&self) -> Result<Flag> {
        Flag::raise(self.folder.path().join("hold"))
    }

    /// From now on starts fail, until what this gives is dropped.
    pub fn fail(&self) -> Result<Flag> {
        Flag::raise(self.folder.path().join("fail"))
    }
}

/// A file that is there as long as this is.
#[derive(Debug)]
#[must_use]
pub struct Flag(PathBuf);

impl Flag {
    fn raise(path: PathBuf) -> Result<Self> {
        fs::write(&path, "").with_context(|| format!("write {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// The mongod that Argon finds, downloaded if need be.
pub fn mongod() -> Result<PathBuf> {
    let output = Command::new(argon()).args(["mongod", "install"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "argon mongod install: {}\n{said}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim_end().into())
}

/// A small file system of its own in memory. Unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    /// What must stand before `mount`, here.
    before: &'static [&'static str],
}

impl Disk {
    /// One with so many megabytes; `None`, said aloud, where this machine allows no mounts.
    pub fn mount(megabytes: u32, what_for: &str) -> Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("disk-").tempdir()?;
        // SAFETY: these cannot fail and touch no memory.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let options = format!("size={megabytes}m,uid={user},gid={group}");
        for before in [&[][..], &["sudo", "-n"]] {
            let mut mount = privileged(before, "mount");
            mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
            if machine::succeeds(&mut mount) {
                return Ok(Some(Self { folder, before }));
            }
        }
        machine::cannot_run(what_for, "mounting a tmpfs needs root, or a sudo that does not ask");
        Ok(None)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lets nobody write from now on.
    pub fn make_read_only(&self) -> Result<()> {
        let mut remount = privileged(self.before, "mount");
        remount.args(["-o", "remount,ro"]).arg(self.path());
        ensure!(machine::succeeds(&mut remount), "remount {}", self.path().display());
        Ok(())
    }

    /// Writes a file that leaves so much free, and never less: what runs there would fail. Dropping
    /// what this gives frees all of it.
    pub fn fill(&self, left_bytes: u64) -> Result<Flag> {
        let bytes = self.free_bytes()?.saturating_sub(left_bytes);
        let path = self.path().join(format!("filler-{}", fs::read_dir(self.path())?.count()));
        let flag = Flag::raise(path.clone())?;
        let mut file = fs::File::options().write(true).open(&path)?;
        std::io::copy(&mut std::io::repeat(0xa5).take(bytes), &mut file)
            .context("fill the disk")?;
        Ok(flag)
    }

    fn free_bytes(&self) -> Result<u64> {
        let mut df = Command::new("df");
        let output = df.args(["--output=avail", "--block-size=1"]).arg(self.path()).output()?;
        let said = String::from_utf8(output.stdout)?;
        let free = said.lines().last().and_then(|line| line.trim().parse().ok());
        free.with_context(|| format!("df said: {said}"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // `-l`: what still has a file open there lets go of it when it ends.
        let mut unmount = privileged(self.before, "umount");
        machine::succeeds(unmount.arg("-l").arg(self.folder.path()));
    }
}

fn privileged(before: &[&str], program: &str) -> Command {
    let Some((first, rest)) = before.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}
