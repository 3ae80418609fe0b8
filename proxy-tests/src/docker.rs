//! A real Docker engine of the tests' own: its data, its sockets and its containers lie in one
//! folder, nothing listens on TCP, no network is touched, and all of it goes with its owner.
//!
//! No registry is asked: the image is made of the mongod that the other tests use and the libraries
//! that it is linked with.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::binary::argon;
use crate::drivers::debian_packages;
use crate::machine::{cannot_run, signal};
use crate::wait::eventually;

/// Names the socket of an engine that is running already, so that one serves many tests.
pub const SOCKET: &str = "ARGON_TEST_DOCKER";
/// Names the image that it has.
pub const IMAGE_NAME: &str = "ARGON_TEST_IMAGE";

/// What the image is called.
pub const IMAGE: &str = "argon-tests/mongo:local";

/// What must be there, and Debian's packages that have it.
const NEEDED: [(&str, &str); 3] =
    [("dockerd", "docker.io"), ("docker", "docker.io"), ("busybox", "busybox-static")];

/// A running engine. Dropping one that was started here ends it and removes all that it had.
#[derive(Debug)]
pub struct Engine {
    /// None of one that runs for others too.
    home: Option<TempDir>,
    socket: PathBuf,
    sees: Sees,
    daemon: Option<Child>,
}

/// Which of this machine's mounts an engine sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    All,
    /// None that was made after its own start, as one in a virtual machine or a container.
    Earlier,
}

/// Installs what an engine needs, where this machine lets it.
pub fn install() -> Result<()> {
    let absent = NEEDED.iter().filter(|(program, _)| which(program).is_none());
    let mut packages: Vec<_> = absent.map(|(_, package)| *package).collect();
    packages.dedup();
    debian_packages(&packages)
}

/// Why no engine can run here.
pub fn missing() -> Option<String> {
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } != 0 {
        return Some("an engine is started by root alone".to_owned());
    }
    let (program, package) = NEEDED.iter().find(|(program, _)| which(program).is_none())?;
    Some(format!("there is no {program}: `apt-get install {package}`, or `cargo verify`"))
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let mut folders = std::env::split_paths(&path).chain(sbin);
    folders.find_map(|folder| Some(folder.join(program)).filter(|file| file.is_file()))
}

impl Engine {
    /// The engine that runs for all tests, else one of its own; otherwise as [`Engine::start`]. Others
    /// may have containers in it, so it is not to be restarted.
    pub fn shared(what_for: &str) -> Result<Option<Self>> {
        match std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) {
            Some(socket) => {
                let (home, socket, sees) = (None, socket.into(), Sees::All);
                Ok(Some(Self { home, socket, sees, daemon: None }))
            }
            None => Self::start(what_for),
        }
    }

    /// An engine of its own with the image, or nothing where this machine cannot run one: that is said.
    pub fn start(what_for: &str) -> Result<Option<Self>> {
        Self::start_that(Sees::All, what_for)
    }

    /// The same, and it sees no mount that is made later.
    pub fn start_apart(what_for: &str) -> Result<Option<Self>> {
        Self::start_that(Sees::Earlier, what_for)
    }

    fn start_that(sees: Sees, what_for: &str) -> Result<Option<Self>> {
        if let Some(why) = missing() {
            cannot_run(what_for, &why);
            return Ok(None);
        }
        // Sockets' paths are short.
        let home = tempfile::Builder::new().prefix("argon-dk-").tempdir_in("/tmp");
        let home = home.context("make a folder")?;
        let socket = home.path().join("docker.sock");
        let mut engine = Self { home: Some(home), socket, sees, daemon: None };
        engine.launch()?;
        engine.import_image()?;
        Ok(Some(engine))
    }

    fn home(&self) -> Result<&Path> {
        let home = self.home.as_ref().context("this engine runs for others too")?;
        Ok(home.path())
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Starts the daemon and waits until it answers.
    fn launch(&mut self) -> Result<()> {
        let home = self.home()?.to_owned();
        let log = File::options().create(true).append(true).open(home.join("log"));
        let at = |name: &str| home.join(name).display().to_string();
        // A configuration of the machine's own engine is not this one's.
        fs::write(home.join("daemon.json"), "{}").context("write daemon.json")?;
        let dockerd = which("dockerd").context("no dockerd")?;
        let mut command = match self.sees {
            Sees::All => Command::new(dockerd),
            Sees::Earlier => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation=private", "--"]).arg(dockerd);
                command
            }
        };
        command
            .args(["--config-file", &at("daemon.json")])
            .args(["--data-root", &at("root"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid"), "-H", &format!("unix://{}", at("docker.sock"))])
            .args(["--storage-driver", "overlay2"])
            // Nothing of the network is changed: no containers of these tests have one.
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false", "--userland-proxy=false"])
            .env("PATH", daemon_path())
            .stdin(Stdio::null())
            .stdout(log.context("open the engine's log")?)
            .stderr(File::options().append(true).open(home.join("log"))?)
            // A Ctrl-C is for the tests.
            .process_group(0);
        self.daemon = Some(command.spawn().context("start dockerd")?);
        let asked = eventually("the engine answers", || {
            if let Some(ended) = self.daemon.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("dockerd ended with {ended}");
            }
            Ok(self.docker(&["version"]).is_ok().then_some(()))
        });
        asked.with_context(|| format!("the engine said:\n{}", self.log()))
    }

    /// Ends the daemon as an operator's restart does, its containers with it, and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.end(libc::SIGTERM)?;
        self.launch()
    }

    /// Kills the daemon, and starts it again: its containers run on meanwhile.
    pub fn crash(&mut self) -> Result<()> {
        self.end(libc::SIGKILL)?;
        self.launch()
    }

    /// Ends the daemon.
    pub fn end(&mut self, with: libc::c_int) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        signal(daemon.id(), with).context("signal dockerd")?;
        let ended = eventually("the engine ends", || Ok(daemon.try_wait()?));
        if ended.is_err() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        ended?;
        self.forget_the_dead()
    }

    /// Removes what a killed daemon could not: it would take a number that no process has any more,
    /// or one that nobody buries, for its own containerd, which dies with it.
    fn forget_the_dead(&self) -> Result<()> {
        fs::remove_file(self.home()?.join("pid")).ok();
        let file = self.home()?.join("exec/containerd/containerd.pid");
        let Ok(pid) = fs::read_to_string(&file) else { return Ok(()) };
        let dead = || {
            let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            let state = status.ok().and_then(|text| Some(text.rsplit_once(") ")?.1.to_owned()));
            Ok(state.is_none_or(|state| state.starts_with('Z')).then_some(()))
        };
        eventually("the engine's containerd ends", dead)?;
        fs::remove_file(&file).context("remove the number of a containerd that has ended")
    }

    /// Runs the command line, and gives what it printed.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        docker(&self.socket(), arguments)
    }

    /// All containers of the server with this data directory, running or not, by name.
    pub fn containers(&self, data_dir: &Path) -> Result<Vec<String>> {
        let filter = format!("label={}", label(data_dir));
        let listed =
            self.docker(&["ps", "--all", "--format", "{{.Names}}", "--filter", &filter])?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Those of them that wait to be given to a branch.
    pub fn parked(&self, data_dir: &Path) -> Result<Vec<String>> {
        let mut names = self.containers(data_dir)?;
        names.retain(|name| is_parked(name));
        Ok(names)
    }

    /// The container that a branch runs in: by its label, or by its name where it was started ahead.
    pub fn container_of(&self, data_dir: &Path, project: &str, branch: &str) -> Result<String> {
        let (filter, label) =
            (format!("label={}", label(data_dir)), format!("label=argon.branch={branch}"));
        let (by_name, format) = (format!("-{project}-{branch}"), "{{.Names}}");
        eventually(format!("there is a container of {branch}"), || {
            let ps = ["ps", "--all", "--format", format, "--filter", &filter];
            let labelled = self.docker(&[&ps[..], &["--filter", &label]].concat())?;
            let all = self.docker(&ps)?;
            let found = labelled.lines().chain(all.lines().filter(|name| name.ends_with(&by_name)));
            Ok(found.map(str::to_owned).next())
        })
    }

    /// Makes another image of the tests' own: as [`IMAGE`] but for one change.
    pub fn another_image(&self, change: &str, name: &str) -> Result<()> {
        let made = self.docker(&["create", "--network=none", IMAGE])?;
        self.docker(&["commit", "--change", change, &made, name])?;
        self.docker(&["rm", "--volumes", &made]).map(drop)
    }

    /// Makes an image in which a shell script stands for mongod; the real one is `/usr/bin/mongod`.
    pub fn image_with_program(&self, folder: &Path, text: &str, name: &str) -> Result<()> {
        let program = folder.join("mongod");
        fs::write(&program, text).context("write the program")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).context("let it run")?;
        let made = self.docker(&["create", "--network=none", IMAGE])?;
        self.docker(&["cp", &program.to_string_lossy(), &format!("{made}:/bin/mongod")])?;
        self.docker(&["commit", "--change", "ENV PATH=/bin:/usr/bin", &made, name])?;
        self.docker(&["rm", "--volumes", &made]).map(drop)
    }

    /// The names of its volumes.
    pub fn volumes(&self) -> Result<Vec<String>> {
        let listed = self.docker(&["volume", "ls", "--quiet"])?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// What it complains of: the rest is long.
    fn log(&self) -> String {
        let read = |home: &TempDir| fs::read_to_string(home.path().join("log")).ok();
        let text = self.home.as_ref().and_then(read).unwrap_or_default();
        let notable = text.lines().filter(|line| !line.contains("level=info"));
        let lines: Vec<_> = notable.collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn import_image(&self) -> Result<()> {
        let root = self.home()?.join("image");
        make_root(&root)?;
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).args(["-c", "."]).stdout(Stdio::piped());
        let mut tar = tar.spawn().context("start tar")?;
        let mut import = docker_command(&self.socket());
        import
            .args(["import", "--change", "ENV PATH=/usr/bin:/bin"])
            // As in the official image.
            .args(["--change", "VOLUME /data/db /data/configdb"])
            .args(["--change", "ENTRYPOINT [\"/bin/false\"]", "-", IMAGE])
            .stdin(tar.stdout.take().context("tar has no stdout")?);
        let output = import.output().context("start docker import")?;
        ensure!(tar.wait()?.success(), "tar failed");
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker import: {said}");
        fs::remove_dir_all(&root).context("remove the image's folder")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(home) = self.home.as_ref().map(|home| home.path().to_owned()) else { return };
        if std::thread::panicking() {
            println!("--- the engine said:\n{}", self.log());
        }
        if self.daemon.is_some() {
            let all = self.docker(&["ps", "--all", "--quiet"]).unwrap_or_default();
            if !all.is_empty() {
                let rm = ["rm", "--force", "--volumes"].into_iter().chain(all.lines());
                self.docker(&rm.collect::<Vec<_>>()).ok();
            }
        }
        self.end(libc::SIGTERM).ok();
        // What is still mounted below would keep the folder.
        for mount in mounts_below(&home).iter().rev() {
            Command::new("umount").args(["--lazy"]).arg(mount).status().ok();
        }
    }
}

/// Whether it is the name of a container that nobody has been given.
fn is_parked(name: &str) -> bool {
    name.rsplit_once("-parked-").is_some_and(|(_, rest)| rest.parse::<u64>().is_ok())
}

/// What containers of the server with this data directory are labelled with.
pub fn label(data_dir: &Path) -> String {
    let data_dir = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    format!("argon.server={}", data_dir.display())
}

/// What is mounted below a folder, in the order of mounting.
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read("/proc/self/mounts").unwrap_or_default();
    let points = mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        line.split(|byte| *byte == b' ').nth(1).map(|point| PathBuf::from(OsStr::from_bytes(point)))
    });
    points.filter(|point| point.starts_with(folder)).collect()
}

/// Runs the command line against an engine, and gives what it printed.
pub fn docker(socket: &Path, arguments: &[&str]) -> Result<String> {
    let output = docker_command(socket).args(arguments).output().context("start docker")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {arguments:?}: {}\n{said}", output.status);
    Ok(String::from_utf8(output.stdout).context("read what docker prints")?.trim().to_owned())
}

fn docker_command(socket: &Path) -> Command {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", format!("unix://{}", socket.display())).env_remove("DOCKER_CONTEXT");
    command.stdin(Stdio::null());
    command
}

fn daemon_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// mongod, what it is linked with, and a shell for whoever looks into a container.
fn make_root(root: &Path) -> Result<()> {
    for folder in ["usr/bin", "bin", "tmp"] {
        fs::create_dir_all(root.join(folder)).context("make the image's folders")?;
    }
    let which_mongod = Command::new(argon()).args(["mongod", "which"]).output();
    let which_mongod = which_mongod.context("start argon mongod which")?;
    ensure!(which_mongod.status.success(), "there is no mongod: `argon mongod install`");
    let mongod = PathBuf::from(OsStr::from_bytes(which_mongod.stdout.trim_ascii()));
    copy(&mongod, &root.join("usr/bin/mongod"))?;
    copy(&which("busybox").context("no busybox")?, &root.join("bin/busybox"))?;
    for name in ["sh", "false"] {
        symlink("busybox", root.join("bin").join(name)).context("link to busybox")?;
    }
    let linked = Command::new("ldd").arg(&mongod).output().context("start ldd")?;
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/'));
    for library in libraries {
        let inside = root.join(library.trim_start_matches('/'));
        let folder = inside.parent().context("a library lies in a folder")?;
        fs::create_dir_all(folder).context("make the image's folders")?;
        copy(Path::new(library), &inside)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}
