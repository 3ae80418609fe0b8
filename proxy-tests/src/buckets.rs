//! S3 servers for tests: moto and s3s-fs, each on a free port of loopback.
//!
//! `docs/s3.md` says what each of them can do. moto, a Python program that is made to take one
//! request at a time, has real conditional writes but takes any credentials; s3s-fs, a Rust program, checks credentials and digests, but lets
//! several of those win who race for one condition.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::machine::{cannot_run, python_packages, succeeds, target};
use crate::wait::eventually;

/// The moto that is tested with.
pub const MOTO: &str = "5.2.5";
/// The s3s-fs that is tested with.
pub const S3S_FS: &str = "0.14.1";

/// The bucket that each server starts with.
pub const BUCKET: &str = "argon-test";
/// The credentials that s3s-fs knows.
pub const ACCESS_KEY: &str = "AKIATEST";
/// Their secret.
pub const SECRET_KEY: &str = "a secret of the tests";

/// A running S3 server. Dropping it kills it and removes what it kept.
#[derive(Debug)]
pub struct Buckets {
    child: Child,
    kind: Kind,
    folder: TempDir,
    /// `HOST:PORT`.
    pub address: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Moto,
    S3sFs,
}

impl Buckets {
    /// moto with one bucket; `None`, said aloud, where it is not installed.
    pub fn moto(what_for: &str) -> Result<Option<Self>> {
        let there = format!("import moto, flask; assert moto.__version__ == '{MOTO}'");
        let mut check = Command::new("python3");
        if !succeeds(check.args(["-c", &there]).env("PYTHONPATH", python_packages())) {
            cannot_run(what_for, "moto is not installed: `cargo verify` does that");
            return Ok(None);
        }
        Self::start(Kind::Moto).map(Some)
    }

    /// s3s-fs with one bucket; `None`, said aloud, where it is not installed.
    pub fn s3s_fs(what_for: &str) -> Result<Option<Self>> {
        if !s3s_fs().exists() {
            cannot_run(what_for, "s3s-fs is not installed: `cargo verify` does that");
            return Ok(None);
        }
        Self::start(Kind::S3sFs).map(Some)
    }

    fn start(kind: Kind) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("buckets-").tempdir()?;
        let (child, address) = launch(kind, folder.path(), 0)?;
        let started = Self { child, kind, folder, address };
        match kind {
            Kind::Moto => started.make_bucket(BUCKET)?,
            Kind::S3sFs => fs::create_dir(started.folder.path().join("data").join(BUCKET))?,
        }
        Ok(started)
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it without warning. moto forgets everything, s3s-fs nothing.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill the S3 server")?;
        self.child.wait().context("wait for the killed S3 server")?;
        Ok(())
    }

    /// Starts it again on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        let (_, port) = self.address.rsplit_once(':').context("an address has a port")?;
        let (child, address) = launch(self.kind, self.folder.path(), port.parse()?)?;
        ensure!(address == self.address, "it listens on {address}, not {}", self.address);
        self.child = child;
        Ok(())
    }

    fn make_bucket(&self, name: &str) -> Result<()> {
        let mut stream = TcpStream::connect(&self.address).context("connect to moto")?;
        let host = &self.address;
        write!(
            stream,
            "PUT /{name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read moto's answer")?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "moto makes no bucket: {answer}");
        Ok(())
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where `cargo verify` puts s3s-fs.
pub fn s3s_fs() -> PathBuf {
    s3s_fs_root().join("bin/s3s-fs")
}

/// The folder to give to `cargo install --root`.
pub fn s3s_fs_root() -> PathBuf {
    target().join(format!("s3s-fs-{S3S_FS}"))
}

/// Starts the program and waits until it says where it listens.
fn launch(kind: Kind, folder: &Path, port: u16) -> Result<(Child, String)> {
    let log = folder.join("log");
    let data = folder.join("data");
    fs::create_dir_all(&data)?;
    let port = port.to_string();
    let mut command = match kind {
        Kind::Moto => {
            let mut moto = Command::new("python3");
            moto.args(["-c", include_str!("moto.py"), &port]);
            moto.env("PYTHONPATH", python_packages()).env("PYTHONUNBUFFERED", "1");
            moto
        }
        Kind::S3sFs => {
            let mut s3s = Command::new(s3s_fs());
            s3s.args(["--host", "127.0.0.1", "--port", &port, "--access-key", ACCESS_KEY]);
            s3s.args(["--secret-key", SECRET_KEY]).arg(&data).env("RUST_LOG", "info");
            s3s
        }
    };
    // A new file each time: it is searched for this start's line.
    let out = File::create(&log).context("make the log of the S3 server")?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).current_dir(folder);
    let mut child = command.spawn().context("start the S3 server")?;
    let found = eventually("the S3 server listens", || {
        let said = fs::read_to_string(&log)?;
        if let Some(status) = child.try_wait()? {
            bail!("the S3 server ended with {status}: {said}");
        }
        let address = said.split_once("http://127.0.0.1:").and_then(|(_, rest)| {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let whole = rest.len() > port.len() && port != "0";
            whole.then(|| format!("127.0.0.1:{port}"))
        });
        Ok(address)
    });
    match found {
        Ok(address) => Ok((child, address)),
        Err(error) => {
            child.kill().ok();
            child.wait().ok();
            Err(error)
        }
    }
}
