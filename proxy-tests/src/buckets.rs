//! S3 servers for tests: moto, s3s-fs and garage, each on a free port of loopback.
//!
//! `docs/s3.md` says what each of them can do. moto, a Python program that is made to take one
//! request at a time, has real conditional writes but takes any credentials; s3s-fs, a Rust program,
//! checks credentials and digests, but lets several of those win who race for one condition; garage,
//! another, takes conditions and ignores them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::binary::cargo;
use crate::machine::{cannot_run, python_packages, succeeds, target};
use crate::wait::eventually;

/// The moto that is tested with.
pub const MOTO: &str = "5.2.5";
/// The s3s-fs that is tested with.
pub const S3S_FS: Program =
    Program { name: "s3s-fs", version: "0.14.1", features: &["--features", "binary"] };
/// The garage that is tested with, with the one database that needs nothing else.
pub const GARAGE: Program = Program {
    name: "garage",
    version: "2.5.0",
    features: &["--no-default-features", "--features", "bundled-libs,sqlite"],
};

/// The region of all of them; garage refuses requests that name another.
pub const REGION: &str = "us-east-1";

/// The bucket that each server starts with.
pub const BUCKET: &str = "argon-test";
/// The credentials that s3s-fs and garage know.
pub const ACCESS_KEY: &str = "AKIATEST";
/// Their secret.
pub const SECRET_KEY: &str = "a-secret-of-the-tests";

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
    Garage,
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
        if !S3S_FS.path().exists() {
            cannot_run(what_for, "s3s-fs is not installed: `cargo verify` does that");
            return Ok(None);
        }
        Self::start(Kind::S3sFs).map(Some)
    }

    /// garage, one node with one bucket. Builds it where it is not installed, which takes minutes.
    pub fn garage() -> Result<Self> {
        GARAGE.install()?;
        Self::start(Kind::Garage)
    }

    fn start(kind: Kind) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("buckets-").tempdir()?;
        let (child, address) = launch(kind, folder.path(), 0)?;
        let started = Self { child, kind, folder, address };
        match kind {
            Kind::Moto => started.make_bucket(BUCKET)?,
            Kind::S3sFs => fs::create_dir(started.folder.path().join("data").join(BUCKET))?,
            Kind::Garage => {}
        }
        Ok(started)
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without warning. moto forgets everything, the others nothing.
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

/// A program from crates.io.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Of the package, and of the program in it.
    pub name: &'static str,
    /// Exactly this.
    pub version: &'static str,
    features: &'static [&'static str],
}

impl Program {
    /// Where it is, once it is installed.
    pub fn path(&self) -> PathBuf {
        self.root().join("bin").join(self.name)
    }

    /// The folder to give to `cargo install --root`.
    pub fn root(&self) -> PathBuf {
        target().join(format!("{}-{}", self.name, self.version))
    }

    /// Builds it where it is not there: without optimisation, which is quicker to have and quick
    /// enough, in a folder of its own, as cargo would else build half of this workspace again for
    /// its other features.
    pub fn install(&self) -> Result<()> {
        if self.path().exists() {
            return Ok(());
        }
        let mut install = cargo();
        install.args(["install", "--quiet", "--debug", "--locked"]).args(self.features);
        install.args([self.name, "--version", self.version]).arg("--root").arg(self.root());
        install.arg("--target-dir").arg(target().join(format!("{}-build", self.name)));
        let status = install.status().with_context(|| format!("start {install:?}"))?;
        ensure!(status.success(), "install {}: {status}", self.name);
        Ok(())
    }
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
            let mut s3s = Command::new(S3S_FS.path());
            s3s.args(["--host", "127.0.0.1", "--port", &port, "--access-key", ACCESS_KEY]);
            s3s.args(["--secret-key", SECRET_KEY]).arg(&data).env("RUST_LOG", "info");
            s3s
        }
        Kind::Garage => garage(folder, &port)?,
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

/// Its configuration has no room for "any port", so free ones are looked for.
fn garage(folder: &Path, port: &str) -> Result<Command> {
    let here = folder.display();
    let api = match port {
        "0" => free_address()?,
        port => format!("127.0.0.1:{port}"),
    };
    let peers = free_address()?;
    let config = format!(
        "metadata_dir = '{here}/meta'\n\
         data_dir = '{here}/data'\n\
         db_engine = 'sqlite'\n\
         replication_factor = 1\n\
         compression_level = 'none'\n\
         rpc_bind_addr = '{peers}'\n\
         rpc_public_addr = '{peers}'\n\
         rpc_secret = '{:064x}'\n\
         [s3_api]\n\
         s3_region = '{REGION}'\n\
         api_bind_addr = '{api}'\n",
        1
    );
    let file = folder.join("garage.toml");
    fs::write(&file, config).context("write garage.toml")?;
    let mut garage = Command::new(GARAGE.path());
    garage.arg("-c").arg(file).args(["server", "--single-node", "--default-bucket"]);
    garage.env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY).env("GARAGE_DEFAULT_BUCKET", BUCKET);
    garage.env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY).env("NO_COLOR", "1");
    garage.env("RUST_LOG", "garage=info,garage_api_common=info");
    Ok(garage)
}

fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("look for a free port")?;
    Ok(listener.local_addr()?.to_string())
}
