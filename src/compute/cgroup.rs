//! Control groups: what a mongod may take of the machine, where the host lets this server say so.
//!
//! Version 2 where it has the controllers (`Delegate=yes` of a systemd service gives them), version 1
//! where the host still uses that. Each mongod has a group of its own below the server's, removed
//! when it has ended; those of a server that was killed are removed by the next one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{ComputeError, Limits};

/// Groups of mongods begin with it.
const PREFIX: &str = "argon-";
/// Where the server itself goes, since a group with groups below it may hold no process.
const SERVER: &str = "argon-server";
/// For shares of the CPU: how often they are counted, microseconds. What the kernel takes by itself.
const CPU_PERIOD_US: u64 = 100_000;
/// More than any mongod holds: all that can be given back.
const RECLAIMED: &str = "1T";
/// A group is gone a moment after its last process.
const REMOVAL: (u32, Duration) = (50, Duration::from_millis(10));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Pids,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups of mongods are made, by controller.
#[derive(Debug)]
pub(super) struct Groups {
    /// Each directory once, with what it controls.
    places: Vec<(PathBuf, Version, Vec<Controller>)>,
    limits: Limits,
    next: AtomicU64,
}

impl Controller {
    /// Those that limits need.
    fn of(limits: Limits) -> Vec<Self> {
        let wanted = [
            limits.memory_bytes.map(|_| Self::Memory),
            limits.cpu_thousandths.map(|_| Self::Cpu),
            limits.pids.map(|_| Self::Pids),
        ];
        wanted.into_iter().flatten().collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    /// Files and what is written to them.
    fn settings(self, version: Version, limits: Limits) -> Vec<(&'static str, String)> {
        let bytes = limits.memory_bytes.unwrap_or(0);
        let quota = u64::from(limits.cpu_thousandths.unwrap_or(0)) * CPU_PERIOD_US / 1000;
        match (self, version) {
            (Self::Memory, Version::Two) => vec![("memory.max", bytes.to_string())],
            (Self::Memory, Version::One) => vec![("memory.limit_in_bytes", bytes.to_string())],
            (Self::Cpu, Version::Two) => vec![("cpu.max", format!("{quota} {CPU_PERIOD_US}"))],
            (Self::Cpu, Version::One) => vec![
                ("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ],
            (Self::Pids, _) => vec![("pids.max", limits.pids.unwrap_or(0).to_string())],
        }
    }
}

impl Groups {
    /// Finds where this server may make groups. None where no limit is wished for: a host may let this
    /// server limit nothing, so none holds that nobody set.
    ///
    /// # Errors
    /// The host does not let it.
    pub(super) fn find(limits: Limits) -> Result<Option<Self>, ComputeError> {
        let limits = limits.that_hold();
        let wanted = Controller::of(limits);
        if wanted.is_empty() {
            return Ok(None);
        }
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| ComputeError::io("read", path, error))
        };
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let hierarchies = hierarchies(&mounts, &own);
        let mut places: Vec<(PathBuf, Version, Vec<Controller>)> = Vec::new();
        for controller in wanted {
            let mut refusal = io::Error::other("the host has no such controller");
            let place = hierarchies.iter().filter(|one| one.offers(controller)).find(|one| {
                let tried = one.try_out(controller);
                tried.map_err(|error| refusal = error).is_ok()
            });
            let Some(place) = place else {
                return Err(ComputeError::Limits {
                    controller: controller.name(),
                    source: refusal,
                });
            };
            match places.iter_mut().find(|(path, ..)| *path == place.path) {
                Some((.., controllers)) => controllers.push(controller),
                None => places.push((place.path.clone(), place.version, vec![controller])),
            }
        }
        places.iter().for_each(|(path, ..)| sweep(path));
        Ok(Some(Self { places, limits, next: AtomicU64::new(0) }))
    }

    /// Makes a group for one mongod.
    pub(super) fn create(&self) -> Result<Group, ComputeError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let mut group = Group { paths: Vec::new() };
        for (place, version, controllers) in &self.places {
            let path = place.join(&name);
            fs::create_dir(&path)
                .map_err(|error| ComputeError::io("make the control group", &path, error))?;
            group.paths.push(path.clone());
            for (file, value) in
                controllers.iter().flat_map(|one| one.settings(*version, self.limits))
            {
                let file = path.join(file);
                fs::write(&file, value)
                    .map_err(|error| ComputeError::io("set the limit", &file, error))?;
            }
        }
        Ok(group)
    }
}

/// The groups of one mongod. Dropped, they are removed as soon as it has ended.
#[derive(Debug)]
pub(super) struct Group {
    paths: Vec<PathBuf>,
}

impl Group {
    /// What a process writes itself into to be in the group.
    pub(super) fn doors(&self) -> Result<Vec<OwnedFd>, ComputeError> {
        let open = |path: &PathBuf| {
            let file = path.join("cgroup.procs");
            let door = OpenOptions::new().write(true).open(&file);
            door.map(OwnedFd::from).map_err(|error| ComputeError::io("open", &file, error))
        };
        self.paths.iter().map(open).collect()
    }

    /// Has the kernel give back memory of it that it can have again, from files or swap; only version 2
    /// can be asked. In the background, for it takes its time.
    pub(super) fn reclaim(&self) {
        let paths: Vec<_> = self.paths.iter().map(|path| path.join("memory.reclaim")).collect();
        for path in paths.into_iter().filter(|path| path.exists()) {
            tokio::task::spawn_blocking(move || {
                // It gives what it can, and says with an error that it was less.
                let _ = fs::write(path, RECLAIMED);
            });
        }
    }

    /// Whether the kernel killed a process of it for the memory that it took.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let counted = |path: &PathBuf| {
            // Version 2, then version 1.
            let texts = ["memory.events", "memory.oom_control"]
                .map(|file| fs::read_to_string(path.join(file)).unwrap_or_default());
            texts.iter().flat_map(|text| text.lines()).any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some("oom_kill") && words.next().is_some_and(|kills| kills != "0")
            })
        };
        self.paths.iter().any(counted)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let paths = std::mem::take(&mut self.paths);
        let left = move || {
            for path in paths {
                for _ in 0..REMOVAL.0 {
                    match fs::remove_dir(&path) {
                        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                            std::thread::sleep(REMOVAL.1);
                        }
                        // Gone; or the next server tries again.
                        _ => break,
                    }
                }
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(left)),
            Err(_) => left(),
        }
    }
}

/// Removes groups that no process is in any more: those of a server that was killed.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // One that is in use stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The group that this server is in, of one kind.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    path: PathBuf,
    version: Version,
    /// Of version 1: what it controls.
    controllers: Vec<String>,
}

impl Hierarchy {
    fn offers(&self, controller: Controller) -> bool {
        match self.version {
            Version::One => self.controllers.iter().any(|name| name == controller.name()),
            Version::Two => {
                let list = fs::read_to_string(self.path.join("cgroup.controllers"));
                list.is_ok_and(|list| list.split_whitespace().any(|name| name == controller.name()))
            }
        }
    }

    /// Makes groups below it possible, and one to see whether they are.
    fn try_out(&self, controller: Controller) -> io::Result<()> {
        if self.version == Version::Two {
            self.delegate(controller)?;
        }
        let probe = self.path.join(format!("{PREFIX}{}-probe", std::process::id()));
        fs::create_dir(&probe)?;
        let limits =
            Limits { memory_bytes: Some(1 << 30), cpu_thousandths: Some(1000), pids: Some(100) };
        let settings = controller.settings(self.version, limits);
        let tried =
            settings.into_iter().try_for_each(|(file, value)| fs::write(probe.join(file), value));
        fs::remove_dir(&probe)?;
        tried
    }

    /// cgroups(7): controllers are for the groups below, and then the processes must be there too.
    fn delegate(&self, controller: Controller) -> io::Result<()> {
        let subtree = self.path.join("cgroup.subtree_control");
        let wish = format!("+{}", controller.name());
        if fs::read_to_string(&subtree)?.split_whitespace().any(|name| name == controller.name()) {
            return Ok(());
        }
        if fs::write(&subtree, &wish).is_ok() {
            return Ok(());
        }
        let server = self.path.join(SERVER);
        match fs::create_dir(&server) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::write(server.join("cgroup.procs"), "0")?,
        }
        fs::write(&subtree, wish)
    }
}

/// The groups that a process is in, the unified one first, from `/proc/PID/mountinfo` and
/// `/proc/PID/cgroup` (cgroups(7)).
fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let own: Vec<(Vec<&str>, &str)> = own
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((controllers.split(',').filter(|name| !name.is_empty()).collect(), path))
        })
        .collect();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (left, right): (Vec<_>, Vec<_>) =
            (left.split(' ').collect(), right.split(' ').collect());
        let ([_, _, _, root, at, ..], [kind, _, options, ..]) = (&left[..], &right[..]) else {
            continue;
        };
        let version = match *kind {
            "cgroup2" => Version::Two,
            "cgroup" => Version::One,
            _ => continue,
        };
        let group = own.iter().find(|(controllers, _)| match version {
            Version::Two => controllers.is_empty(),
            Version::One => {
                !controllers.is_empty()
                    && controllers.iter().all(|name| options.split(',').any(|one| one == *name))
            }
        });
        let Some((controllers, path)) = group else { continue };
        // What is mounted may itself be a group: then paths begin there.
        let below = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
        let path = if below.is_empty() { PathBuf::from(at) } else { Path::new(at).join(below) };
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        found.push(Hierarchy { path, version, controllers });
    }
    found.sort_by_key(|hierarchy| hierarchy.version == Version::One);
    found
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_servers_own_groups_are_found_in_either_version() {
        let mounts = "30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            31 30 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
            32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            33 30 0:29 /pod /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "5:cpu,cpuacct:/\n4:memory:/a/b\n0::/pod/argon.service\n";
        let found: Vec<_> = hierarchies(mounts, own)
            .into_iter()
            .map(|one| (one.path.to_string_lossy().into_owned(), one.version))
            .collect();
        let expected = [
            ("/sys/fs/cgroup/unified/argon.service", Version::Two),
            ("/sys/fs/cgroup/memory/a/b", Version::One),
            ("/sys/fs/cgroup/cpu", Version::One),
        ];
        assert_eq!(found, expected.map(|(path, version)| (path.to_owned(), version)));
        assert_eq!(hierarchies("", own), []);
    }

    #[test]
    fn limits_are_written_as_each_version_has_them() {
        let limits =
            Limits { memory_bytes: Some(64 << 20), cpu_thousandths: Some(1500), pids: Some(99) };
        let two = |one: Controller| one.settings(Version::Two, limits);
        assert_eq!(two(Controller::Memory), [("memory.max", "67108864".to_owned())]);
        assert_eq!(two(Controller::Cpu), [("cpu.max", "150000 100000".to_owned())]);
        assert_eq!(two(Controller::Pids), [("pids.max", "99".to_owned())]);
        let one = Controller::Cpu.settings(Version::One, limits);
        assert_eq!(one[1], ("cpu.cfs_quota_us", "150000".to_owned()));
        assert_eq!(Controller::of(Limits::default()), []);
        assert!(Groups::find(Limits::default()).unwrap().is_none());
        let none = Limits { memory_bytes: Some(0), cpu_thousandths: Some(0), pids: Some(0) };
        assert!(Groups::find(none).unwrap().is_none());
    }

    /// On a real host, whatever version it has: a hungry process is killed alone.
    #[test]
    fn who_takes_more_memory_than_the_limit_is_killed_and_the_group_says_so() {
        let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
        let groups = match Groups::find(limits) {
            Ok(groups) => groups.unwrap(),
            // A host may refuse; then serve does, in these words.
            Err(error) => return assert!(error.to_string().contains("memory"), "{error}"),
        };
        let group = groups.create().unwrap();
        let path = group.paths[0].clone();
        let script = format!(
            "echo $$ > {}/cgroup.procs && head -c 300M /dev/zero | tail -c 300M",
            path.display()
        );
        let mut hungry = Command::new("/bin/sh");
        let status = hungry.args(["-c", &script]).stdout(Stdio::null()).status().unwrap();
        assert!(!status.success(), "{status}");
        assert!(group.ran_out_of_memory());
        assert!(!groups.create().unwrap().ran_out_of_memory());
        drop(group);
        assert!(!path.exists(), "{}", path.display());
    }

    #[test]
    fn what_a_killed_server_left_is_swept() {
        let place = tempfile::tempdir().unwrap();
        for name in ["argon-1-7", "other"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        fs::create_dir_all(place.path().join("argon-2-1/in-use")).unwrap();
        sweep(place.path());
        assert!(!place.path().join("argon-1-7").exists());
        assert!(place.path().join("other").exists() && place.path().join("argon-2-1").exists());
    }
}
