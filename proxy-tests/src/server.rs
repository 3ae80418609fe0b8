//! A real `argon serve` on free ports and a data folder of its own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use argon_admin::types::Branch;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::argon;
use crate::cli::Cli;
use crate::docker::{Engine, IMAGE};
use crate::machine::{listening_ports, mongods_below, refuse_namespaces, signal};
use crate::wait::{PATIENCE, eventually, eventually_async};

/// Variables that may say something about the server under test; all others that Argon knows are
/// taken away, so that a developer's own settings do not change what is tested.
const KEPT: [&str; 2] = ["ARGON_MONGOD", "ARGON_CACHE_DIR"];
const FOREIGN: [&str; 3] = ["S3_BUCKET", "RUST_LOG", "DASHBOARD_AUTO_SUSPEND_IDLE_MINUTES"];
/// What begins so is taken away too: a test's bucket is never somebody's own.
const FOREIGN_BEGINNING: &str = "AWS_";

/// mongods that are started ahead would be counted where a test counts mongods, and would take the
/// processor from many servers at once: who wants some says so.
const NONE_PARKED: (&str, &str) = ("ARGON_PARKED", "0");

/// Whichever port is free.
const ANY_PORT: &str = "127.0.0.1:0";

/// A running server. Dropping it kills it at once and removes its folder.
#[derive(Debug)]
pub struct Server {
    child: Child,
    setup: Setup,
    /// Where drivers connect, `HOST:PORT`.
    pub listen: String,
    /// Where the admin API listens, `HOST:PORT`.
    pub admin: String,
}

/// What a server is started with.
#[derive(Debug)]
pub struct Setup {
    home: TempDir,
    data_dir: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    namespaces: Namespaces,
    says: Says,
}

/// Who reads what the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// The tests: its log is a file, and its addresses are JSON.
    ToTests,
    /// Nobody: its log goes into a pipe that no one has the other end of.
    ToNobody,
}

/// Whether the server may make namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespaces {
    /// As far as the machine allows it.
    AsAllowed,
    Refused,
}

impl Setup {
    /// An empty folder and nothing else.
    pub fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("argon-").tempdir().context("make a folder")?;
        let data_dir = home.path().join("data");
        std::fs::write(home.path().join("argon.toml"), "").context("write argon.toml")?;
        Ok(Self {
            home,
            data_dir,
            arguments: Vec::new(),
            variables: Vec::new(),
            namespaces: Namespaces::AsAllowed,
            says: Says::ToTests,
        })
    }

    /// Adds arguments to `argon serve`.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|one| (*one).to_owned()));
        self
    }

    /// Sets a variable in the server's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.variables.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// Keeps the data somewhere else than in the folder of its own.
    #[must_use]
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = path.to_owned();
        self
    }

    /// Lets the server run as on a machine that refuses namespaces: its mongods are then on
    /// loopback ports, which others can reach too.
    #[must_use]
    pub fn without_namespaces(mut self) -> Self {
        self.namespaces = Namespaces::Refused;
        self
    }

    /// Lets nobody read what the server says, as where `head` had enough of it.
    #[must_use]
    pub fn unread(mut self) -> Self {
        self.says = Says::ToNobody;
        self
    }

    /// Runs branches in containers.
    #[must_use]
    pub fn docker(self, engine: &Engine) -> Self {
        self.variable("ARGON_COMPUTE", "docker")
            .variable("ARGON_IMAGE", IMAGE)
            .variable("ARGON_DOCKER_SOCKET", engine.socket())
    }

    /// The folder of its own: working directory, configuration, log, and the data by default.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts the server and waits until it listens.
    pub fn start(self) -> Result<Server> {
        let (child, listen, admin) = self.launch(ANY_PORT, &[])?;
        Ok(Server { child, setup: self, listen, admin })
    }

    /// Starts a server that is expected not to come up, and gives its exit code and what it said.
    pub fn fail(&self) -> Result<(Option<i32>, String)> {
        self.fail_at(ANY_PORT)
    }

    /// The same, on this address.
    pub fn fail_at(&self, listen: &str) -> Result<(Option<i32>, String)> {
        let mut child = self.spawn(listen, &[])?;
        let exited = eventually("the server ends", || Ok(child.try_wait()?));
        if exited.is_err() {
            child.kill().ok();
            child.wait().ok();
        }
        Ok((exited?.code(), self.log()))
    }

    fn launch(&self, listen: &str, more: &[&str]) -> Result<(Child, String, String)> {
        let mut child = self.spawn(listen, more)?;
        let ready = match self.says {
            Says::ToTests => self.ready(&mut child),
            Says::ToNobody => seen(&mut child),
        };
        match ready {
            Ok((listen, admin)) => Ok((child, listen, admin)),
            Err(e) => {
                child.kill().ok();
                child.wait().ok();
                Err(e.context(format!("the server said:\n{}", self.log())))
            }
        }
    }

    fn spawn(&self, listen: &str, more: &[&str]) -> Result<Child> {
        let log = self.home().join("server.log");
        let log = File::options().create(true).append(true).open(log).context("open server.log")?;
        let mut command = Command::new(argon());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let ours = text.starts_with("ARGON_") && !KEPT.contains(&&*text);
            if ours || FOREIGN.contains(&&*text) || text.starts_with(FOREIGN_BEGINNING) {
                command.env_remove(&name);
            }
        }
        command
            .args(["serve", "--listen", listen, "--admin-listen", ANY_PORT])
            .args(["--config", "argon.toml", "--data-dir"])
            .arg(&self.data_dir)
            .args(&self.arguments)
            .args(more)
            // Not what happens to be on the machine.
            .env("ARGON_COMPUTE", "process")
            .env(NONE_PARKED.0, NONE_PARKED.1)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        match self.says {
            Says::ToTests => command.arg("--ready-json").stderr(log),
            Says::ToNobody => command.stderr(io::pipe().context("make a pipe")?.1),
        };
        if self.namespaces == Namespaces::Refused {
            refuse_namespaces(&mut command);
        }
        command.spawn().with_context(|| format!("start {} serve", argon().display()))
    }

    fn ready(&self, child: &mut Child) -> Result<(String, String)> {
        let stdout = child.stdout.take().context("the server has no stdout")?;
        let (sender, receiver) = mpsc::channel();
        // A thread, for a pipe can only be read without a deadline. It ends with the server.
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            let read = stdout.read_line(&mut line).map(|_| line);
            sender.send(read).ok();
            io::copy(&mut stdout, &mut io::sink()).ok();
        });
        let line = receiver.recv_timeout(PATIENCE).context("wait for the server to listen")??;
        if line.is_empty() {
            bail!("the server ended before it listened: {}", child.wait()?);
        }
        let ready: Value =
            serde_json::from_str(&line).with_context(|| format!("read the line {line}"))?;
        let address = |key: &str| {
            ready[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {ready}"))
        };
        Ok((address("listen")?, address("admin")?))
    }

    fn log(&self) -> String {
        let mut text = String::new();
        let file = File::open(self.home().join("server.log"));
        file.and_then(|mut file| file.read_to_string(&mut text)).ok();
        text
    }
}

/// Where a server listens that says so to nobody: one of its two ports speaks the admin API.
fn seen(child: &mut Child) -> Result<(String, String)> {
    eventually("the server listens", || {
        if let Some(status) = child.try_wait()? {
            bail!("the server ended before it listened: {status}");
        }
        let ports = listening_ports(child.id())?;
        let [one, other] = &ports[..] else { return Ok(None) };
        let (one, other) = (format!("127.0.0.1:{one}"), format!("127.0.0.1:{other}"));
        let is_admin = |address: &str| Cli::new(&format!("http://{address}")).run(&["status"]);
        Ok(match (is_admin(&one), is_admin(&other)) {
            (Ok(_), _) => Some((other, one)),
            (_, Ok(_)) => Some((one, other)),
            _ => None,
        })
    })
}

impl Server {
    /// A server with nothing but defaults.
    pub fn start() -> Result<Self> {
        Setup::new()?.start()
    }

    /// The command line, speaking to this server.
    pub fn cli(&self) -> Cli {
        Cli::new(&format!("http://{}", self.admin))
    }

    /// Creates a project.
    pub fn project(&self, name: &str) -> Result<()> {
        self.cli().run(&["project", "create", name]).map(drop)
    }

    /// Creates a branch in the only project.
    pub fn branch(&self, name: &str, options: &[&str]) -> Result<Branch> {
        self.cli().json(&[&["branch", "create", name], options].concat())
    }

    /// How a branch of the only project stands.
    pub fn show(&self, branch: &str) -> Result<Branch> {
        self.cli().json(&["branch", "show", branch])
    }

    /// Waits until a branch stands as it should.
    pub async fn until(&self, branch: &str, stands: impl Fn(&Branch) -> bool) -> Result<Branch> {
        let ask = || async {
            let now = self.show(branch)?;
            Ok(stands(&now).then_some(now))
        };
        let waited = eventually_async(format!("branch {branch} stands as expected"), ask).await;
        waited.with_context(|| format!("it stands at {:?}", self.show(branch)))
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it logged, by all its processes so far.
    pub fn log(&self) -> String {
        self.setup.log()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.setup.data_dir
    }

    /// The folder of its own.
    pub fn home(&self) -> &Path {
        self.setup.home()
    }

    /// The mongod processes that work for it.
    pub fn mongods(&self) -> Vec<u32> {
        mongods_below(&self.setup.data_dir)
    }

    /// Breaks every lazy mount of it, as a daemon that dies does to the mounts that it served.
    pub fn break_mounts(&self) -> Result<()> {
        for mount in argon::mount::lazy::mounts_below(self.data_dir())? {
            // It answers nobody from now on; it stays where it is as long as mongod has it open.
            let mut umount = Command::new("umount");
            umount.arg("--force").arg(&mount).stderr(Stdio::null());
            umount.status().with_context(|| format!("break the mount {}", mount.display()))?;
        }
        Ok(())
    }

    /// Ends it without warning, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill the server")?;
        self.child.wait().context("wait for the killed server")?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self, with: libc::c_int) -> Result<ExitStatus> {
        signal(self.pid(), with).context("signal the server")?;
        eventually("the server drains and ends", || Ok(self.child.try_wait()?))
    }

    /// Starts it again on the same data folder, on other ports.
    pub fn start_again(&mut self) -> Result<()> {
        let (child, listen, admin) = self.setup.launch(ANY_PORT, &[])?;
        (self.child, self.listen, self.admin) = (child, listen, admin);
        Ok(())
    }

    /// The same, with a variable set in its environment for this one life.
    pub fn start_again_with(&mut self, name: &str, value: &str) -> Result<()> {
        self.setup.variables.push((name.to_owned(), value.to_owned()));
        let started = self.start_again();
        self.setup.variables.pop();
        started
    }

    /// Waits until it has ended by itself.
    pub fn until_ended(&mut self) -> Result<ExitStatus> {
        eventually("the server ends", || Ok(self.child.try_wait()?))
    }

    /// Replaces it by another process on the same address and data. Gives how the old one ended.
    pub fn replace(&mut self) -> Result<ExitStatus> {
        let (child, _, admin) = self.setup.launch(&self.listen, &["--take-over"])?;
        let mut old = std::mem::replace(&mut self.child, child);
        self.admin = admin;
        eventually("the old server ends", || Ok(old.try_wait()?))
    }

    /// Lets it run on when this process ends. Gives its folder, which stays.
    pub fn leave_running(self) -> PathBuf {
        let mut this = std::mem::ManuallyDrop::new(self);
        this.setup.home.disable_cleanup(true);
        this.setup.home.path().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the server said:\n{}", self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
        // Its mongods die with it, but not before it; their files would come back.
        eventually("no mongod is left", || Ok(self.mongods().is_empty().then_some(()))).ok();
        // And a mount without a server cannot be removed as a folder.
        argon::mount::lazy::unmount_stale(&self.setup.data_dir).ok();
    }
}
