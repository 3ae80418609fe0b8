//! The ways to one and the same mongod: direct, through HAProxy, through Argon.
//!
//! Which mongod: a branch's own. Argon normally shuts it up in a network namespace, where only its
//! Unix socket leads; here the server runs where namespaces are refused, so it falls back to a
//! mongod on a free loopback port, and that port is what HAProxy and direct clients use. So there
//! is one process with one set of data behind all three, and each is reached as users reach it:
//! direct and HAProxy by TCP, Argon by the Unix socket.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use proxy_tests::machine;
use proxy_tests::server::{Server, Setup};
use proxy_tests::wait::eventually;
use tempfile::TempDir;

const PROJECT: &str = "bench";
const BRANCH: &str = "dev";

/// More than the bench makes, on a server whose limit is lower.
const CONNECTIONS_MAX: &str = "12000";

/// Names HAProxy's binary where it is not in PATH.
const HAPROXY: &str = "ARGON_BENCH_HAPROXY";

/// One way to the mongod.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its column.
    pub name: &'static str,
    /// Where clients connect.
    pub address: String,
    /// The proxy's process; direct has none.
    pub pid: Option<u32>,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Places {
    /// Argon, and by it the mongod.
    pub server: Server,
    _haproxy: Option<Haproxy>,
    /// Direct first.
    pub all: Vec<Place>,
}

impl Places {
    /// Starts everything, with a branch that does not go to sleep by itself.
    pub fn start() -> Result<Self> {
        let setup = Setup::new()?.without_namespaces();
        let setup = setup.variable("ARGON_MAX_CONNECTIONS", CONNECTIONS_MAX);
        let setup = setup.variable("ARGON_MAX_BRANCH_CONNECTIONS", CONNECTIONS_MAX);
        let server = setup.start().context("start argon")?;
        server.project(PROJECT)?;
        server.branch(BRANCH, &["--empty", "--idle-timeout", "never"])?;
        resume(&server)?;
        let mongod = mongod_address(&server)?;
        let argon =
            Place { name: "argon", address: server.listen.clone(), pid: Some(server.pid()) };
        let mut all = vec![Place { name: "direct", address: mongod.clone(), pid: None }];
        let haproxy = match find_haproxy() {
            Some(program) => Some(Haproxy::start(program, &mongod).context("start HAProxy")?),
            None => {
                let why = format!("no haproxy: `apt-get install haproxy`, or name it in {HAPROXY}");
                machine::cannot_run("the comparison with HAProxy", &why);
                None
            }
        };
        all.extend(haproxy.as_ref().map(|haproxy| Place {
            name: "haproxy",
            address: haproxy.address.clone(),
            pid: Some(haproxy.child.id()),
        }));
        all.push(argon);
        Ok(Self { server, _haproxy: haproxy, all })
    }

    /// The way through Argon.
    pub fn argon(&self) -> &Place {
        self.all.last().expect("Argon is always there")
    }

    /// Wakes the branch. Its mongod is then another one, which only Argon knows.
    pub fn resume(&self) -> Result<()> {
        resume(&self.server)
    }

    /// Puts the branch to sleep.
    pub fn suspend(&self) -> Result<()> {
        self.server.cli().run(&["branch", "suspend", "--wait", BRANCH]).map(drop)
    }
}

fn resume(server: &Server) -> Result<()> {
    server.cli().run(&["branch", "resume", BRANCH]).map(drop)
}

/// What clients give as their appName.
pub fn app_name() -> String {
    format!("argon.{PROJECT}/{BRANCH}")
}

/// The port of the only mongod, as it was started with.
fn mongod_address(server: &Server) -> Result<String> {
    let [pid] = server.mongods()[..] else { bail!("there is not exactly one mongod") };
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).context("read its command")?;
    let mut words = line.split('\0').skip_while(|word| *word != "--port");
    let port = words.nth(1).context("mongod was given no port")?;
    let address = format!("127.0.0.1:{port}");
    TcpStream::connect(&address).context("reach mongod by TCP: is it in a namespace?")?;
    Ok(address)
}

fn find_haproxy() -> Option<PathBuf> {
    let named = std::env::var_os(HAPROXY).map(PathBuf::from);
    // Debian keeps it where the PATH of people other than root does not lead.
    let usual = ["haproxy", "/usr/sbin/haproxy"].map(PathBuf::from);
    let works = |program: &PathBuf| machine::succeeds(Command::new(program).arg("-v"));
    named.into_iter().chain(usual).find(works)
}

/// HAProxy in TCP mode, with its defaults: a thread for each processor, no splicing.
#[derive(Debug)]
struct Haproxy {
    child: Child,
    address: String,
    _home: TempDir,
}

impl Haproxy {
    fn start(program: PathBuf, mongod: &str) -> Result<Self> {
        let home = tempfile::tempdir().context("make a folder")?;
        // Free now, and taken again in a moment: nobody else asks for one on this machine's loopback
        // that fast, and if somebody does, HAProxy fails loudly.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string();
        let config = home.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen mongo\n  bind {address}\n  server mongod {mongod}\n"
        );
        fs::write(&config, text).context("write haproxy.cfg")?;
        let child = Command::new(&program)
            .arg("-db")
            .arg("-f")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let haproxy = Self { child, address, _home: home };
        eventually("HAProxy listens", || Ok(TcpStream::connect(&haproxy.address).ok()))?;
        Ok(haproxy)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
