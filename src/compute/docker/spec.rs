//! What a container may do and see, as one document for the engine. Nothing here asks anybody.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::engine::Image;
use crate::compute::launch::{self, PORT};
use crate::compute::{Cell, Limits, Owner};

/// Containers of one server: the folder of its data, which one server at a time has.
pub(super) const SERVER: &str = "argon.server";
const PROJECT: &str = "argon.project";
const BRANCH: &str = "argon.branch";
const EPOCH: &str = "argon.epoch";
/// One that was started ahead has this instead of a branch: labels are for good.
const PARKED: &str = "argon.parked";

/// The folders as mongod sees them. The official image has a volume at the first one.
const DBPATH: &str = "/data/db";
const SOCKET_DIR: &str = "/run/argon";

/// What mongod asks for: https://www.mongodb.com/docs/manual/reference/ulimit/
pub(super) const OPEN_FILES: i64 = 64_000;

/// What all containers of a server have in common.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// The id of the image, where nothing asks for another.
    pub(super) image: String,
    /// The value of the label [`SERVER`].
    pub(super) server: String,
    /// `UID:GID`.
    pub(super) user: String,
    pub(super) limits: Limits,
    /// How many CPUs the engine has: it refuses to promise more.
    pub(super) cpus: u32,
    /// What its processes may take, by the names of `docker run --ulimit`.
    pub(super) ulimits: Vec<(&'static str, i64)>,
}

impl Template {
    /// A container that runs a cell's mongod.
    pub(super) fn mongod(&self, cell: &Cell, image: &Image) -> ContainerCreateBody {
        let words = launch::arguments(cell, PORT, Path::new(DBPATH), Path::new(SOCKET_DIR));
        let mut body = self.body(words, &cell.owner);
        body.image = Some(image.id.clone());
        if let Some(host) = &mut body.host_config {
            host.mounts =
                Some(vec![bind(&cell.dbpath, DBPATH), bind(&cell.socket_dir, SOCKET_DIR)]);
        }
        body
    }

    /// The same, started before it is known for which branch.
    pub(super) fn parked(&self, cell: &Cell, image: &Image) -> ContainerCreateBody {
        let mut body = self.mongod(cell, image);
        let labels = [(SERVER, &*self.server), (PARKED, "true")];
        body.labels = Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        body
    }

    /// A container whose mongod reads a file as its configuration, in a folder that is bound as a
    /// dbpath is.
    pub(super) fn look_at(&self, file: &Path) -> ContainerCreateBody {
        let inside = Path::new(DBPATH).join(file.file_name().unwrap_or_default());
        let words = ["--version", "--config", &*inside.to_string_lossy()];
        let mut body = self.body(words.map(str::to_owned).into(), &Owner::default());
        if let Some(host) = &mut body.host_config {
            host.mounts = Some(vec![bind(file.parent().unwrap_or(file), DBPATH)]);
        }
        body
    }

    /// A container that runs `mongod --version`, confined as the others.
    pub(super) fn version(&self) -> ContainerCreateBody {
        self.body(vec!["--version".to_owned()], &Owner::default())
    }

    fn body(&self, words: Vec<String>, owner: &Owner) -> ContainerCreateBody {
        let labels = [
            (SERVER, self.server.clone()),
            (PROJECT, owner.project.clone()),
            (BRANCH, owner.branch.clone()),
            (EPOCH, owner.epoch.to_string()),
        ];
        ContainerCreateBody {
            image: Some(self.image.clone()),
            // Without the image's own entry point: nothing stands between the engine and mongod.
            entrypoint: Some(vec!["mongod".to_owned()]),
            cmd: Some(words),
            user: Some(self.user.clone()),
            working_dir: Some("/".to_owned()),
            env: Some(vec![
                // The client's and the operator's locale must not change what mongod does.
                "LC_ALL=C".to_owned(),
                // As MongoDB's own packages set it, for the allocator of mongod 8.0:
                // https://www.mongodb.com/docs/manual/administration/tcmalloc-performance/
                "GLIBC_TUNABLES=glibc.pthread.rseq=0".to_owned(),
            ]),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value)).into()),
            network_disabled: Some(true),
            host_config: Some(self.host_config()),
            ..Default::default()
        }
    }

    fn host_config(&self) -> HostConfig {
        let Limits { memory_bytes, cpu_thousandths, pids } = self.limits.that_hold();
        let memory = memory_bytes.and_then(|bytes| i64::try_from(bytes).ok());
        let cpus = cpu_thousandths.filter(|share| *share < self.cpus.saturating_mul(1000));
        let map = |entries: &[(&str, &str)]| -> HashMap<String, String> {
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let ulimit = |name: &str, most| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(most),
            hard: Some(most),
        };
        // No image of mongod's memory on the disk, which would be data.
        let ulimits = self.ulimits.iter().copied().chain([("core", 0)]);
        HostConfig {
            network_mode: Some("none".to_owned()),
            readonly_rootfs: Some(true),
            tmpfs: Some(map(&[
                ("/tmp", "rw,nosuid,nodev,noexec,size=64m,mode=1777"),
                // A volume of the official image, which would become one more on the disk.
                ("/data/configdb", "rw,nosuid,nodev,noexec,size=1m"),
            ])),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            memory,
            // No swap on top of it.
            memory_swap: memory,
            nano_cpus: cpus.map(|thousandths| i64::from(thousandths) * 1_000_000),
            pids_limit: pids.map(i64::from),
            ulimits: Some(ulimits.map(|(name, most)| ulimit(name, most)).collect()),
            ipc_mode: Some("private".to_owned()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(map(&[("max-size", "4m"), ("max-file", "2")])),
            }),
            // Whether a branch runs is for Argon to say.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            auto_remove: Some(false),
            ..Default::default()
        }
    }
}

/// A folder of this machine in the container, with what is mounted below it. What is mounted later
/// does not appear, and nothing that is done inside comes back.
fn bind(source: &Path, target: &str) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(false),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Choice;

    fn template(limits: Limits) -> Template {
        let (image, server) = ("sha256:00".to_owned(), "/data".to_owned());
        Template { image, server, user: "7:8".to_owned(), limits, cpus: 4, ulimits: Vec::new() }
    }

    fn cell() -> Cell {
        let owner = Owner { project: "shop".into(), branch: "dev".into(), epoch: 3 };
        let (dbpath, socket_dir) = ("/data/work/b/db".into(), "/data/run/b".into());
        Cell {
            dbpath,
            socket_dir,
            log: "/log".into(),
            cache_gb: 0.25,
            oplog_mb: 16,
            owner,
            mongod: Choice::Server,
        }
    }

    #[test]
    fn a_container_may_do_as_little_as_mongod_needs() {
        let image = Image { name: "mongo:6".into(), id: "sha256:01".into(), digest: None };
        let body = template(Limits::default()).mongod(&cell(), &image);
        let host = body.host_config.unwrap();
        assert_eq!(body.image.as_deref(), Some("sha256:01"));
        assert_eq!(body.user.as_deref(), Some("7:8"));
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
        let sources: Vec<_> = host.mounts.unwrap().into_iter().flat_map(|one| one.source).collect();
        assert_eq!(sources, ["/data/work/b/db", "/data/run/b"]);
        let labels = body.labels.unwrap();
        for (name, value) in [(SERVER, "/data"), (PROJECT, "shop"), (BRANCH, "dev"), (EPOCH, "3")] {
            assert_eq!(labels[name], value);
        }
        let parked = template(Limits::default()).parked(&cell(), &image).labels.unwrap();
        assert_eq!(parked.len(), 2, "it is nobody's: {parked:?}");
        assert_eq!((&*parked[SERVER], &*parked[PARKED]), ("/data", "true"));
    }

    #[test]
    fn limits_are_set_as_far_as_the_engine_can_promise_them() {
        let limits = |memory_bytes, cpu_thousandths, pids| {
            let limits = Limits {
                memory_bytes: Some(memory_bytes),
                cpu_thousandths: Some(cpu_thousandths),
                pids: Some(pids),
            };
            let host = template(limits).host_config();
            (host.memory, host.memory_swap, host.nano_cpus, host.pids_limit)
        };
        let gib = Some(1 << 30);
        assert_eq!(limits(1 << 30, 1500, 100), (gib, gib, Some(1_500_000_000), Some(100)));
        assert_eq!(limits(1 << 30, 4000, 100).2, None, "all of its CPUs are no limit");
        assert_eq!(limits(0, 0, 0), (None, None, None, None));
    }
}
