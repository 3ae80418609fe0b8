//! The commands that never pass, each with its reason and what to use instead.
//!
//! What would end or reconfigure a mongod that Argon runs, what would be gone with the next suspend
//! although it looks lasting, what moves data past Argon, and what MongoDB's own servers say to each
//! other. What mongod keeps in the volume itself may pass: it is part of the branch.
//! Source: mongod 6.0 and 7.0, `listCommands`.

use bson::RawDocument;

/// Why commands are refused, and what to use instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forbidden {
    /// Why.
    pub(super) why: &'static str,
    /// What to use instead.
    pub(super) instead: &'static str,
    commands: &'static [&'static str],
    /// The same for all commands that begin so, but for [`PASSING`].
    prefixes: &'static [&'static str],
}

const PROCESS: Forbidden = Forbidden {
    why: "Argon starts and stops each branch's server itself",
    instead: "`argon branch suspend` puts the branch to sleep",
    commands: &["shutdown"],
    prefixes: &[],
};

const MEMBERSHIP: Forbidden = Forbidden {
    why: "each branch is a replica set of one member that Argon owns",
    instead: "`argon branch create --from` makes a copy of a branch",
    commands: &[],
    prefixes: &["replSet"],
};

const FORMAT: Forbidden = Forbidden {
    why: "it would change the branch's files for good, so that its earlier versions and this server \
          no longer fit together",
    instead: "dump the branch and load it with a server of the other version",
    commands: &["setFeatureCompatibilityVersion"],
    prefixes: &[],
};

const LOCK: Forbidden = Forbidden {
    why: "a locked server cannot be saved, and the lock would be gone with the next suspend",
    instead: "`argon branch suspend` makes a version, `argon branch dump` an archive",
    commands: &["fsyncUnlock"],
    prefixes: &[],
};

const PARAMETERS: Forbidden = Forbidden {
    why: "it would be gone with the next suspend",
    instead: "options of the commands themselves, such as maxTimeMS, or setClusterParameter",
    commands: &["clearFailPoint", "configureFailPoint", "setParameter"],
    prefixes: &[],
};

const HOST: Forbidden = Forbidden {
    why: "the server's files, connections and certificates are Argon's",
    instead: "`argon branch show`, the logs of `argon serve`, and the command getLog",
    commands: &[
        "dropConnections",
        "logRotate",
        "rotateCertificates",
        "rotateFTDC",
        "startRecordingTraffic",
        "startTrafficRecording",
        "stopRecordingTraffic",
        "stopTrafficRecording",
    ],
    prefixes: &[],
};

const SHARDING: Forbidden = Forbidden {
    why: "a branch is one replica set and has no shards",
    instead: "collections work without being sharded; \
              `argon branch create` makes more branches",
    commands: &[
        "abortReshardCollection",
        "addShard",
        "addShardToZone",
        "balancerStart",
        "balancerStop",
        "cleanupReshardCollection",
        "commitReshardCollection",
        "commitTransitionToDedicatedConfigServer",
        "enableSharding",
        "moveChunk",
        "moveCollection",
        "movePrimary",
        "moveRange",
        "refineCollectionShardKey",
        "removeShard",
        "removeShardFromZone",
        "reshardCollection",
        "setShardVersion",
        "shardCollection",
        "split",
        "startTransitionToDedicatedConfigServer",
        "transitionFromDedicatedConfigServer",
        "transitionToDedicatedConfigServer",
        "unshardCollection",
        "updateZoneKeyRange",
    ],
    prefixes: &[],
};

const MIGRATION: Forbidden = Forbidden {
    why: "it would move data past Argon",
    instead: "`argon branch dump` and `argon base set`",
    commands: &[],
    prefixes: &["donor", "recipient"],
};

const INTERNAL: Forbidden = Forbidden {
    why: "it is what MongoDB's own servers say to each other",
    instead: "the public command for the same purpose",
    commands: &[],
    prefixes: &["_"],
};

/// All of them.
static TABLE: [Forbidden; 9] =
    [PROCESS, MEMBERSHIP, FORMAT, LOCK, PARAMETERS, HOST, SHARDING, MIGRATION, INTERNAL];

/// What begins like a forbidden command and may pass: mongorestore's way to restore users.
const PASSING: [&str; 1] = ["_mergeAuthzCollections"];

/// Why the command of this name is refused, if it is. Those that `classify` knows by name are not
/// asked for here.
pub(super) fn forbidden(command: &str) -> Option<&'static Forbidden> {
    if PASSING.contains(&command) {
        return None;
    }
    TABLE.iter().find(|row| {
        row.commands.contains(&command)
            || row.prefixes.iter().any(|prefix| command.starts_with(prefix))
    })
}

/// Why a command is refused for its arguments: `fsync` with `lock`, however that is spelt. One that
/// is too long to be read here is none that anybody sends in earnest.
pub(super) fn forbidden_arguments(command: Option<&RawDocument>) -> Option<&'static Forbidden> {
    let unlocked = command.is_some_and(|command| match command.get("lock") {
        Ok(None) => true,
        Ok(Some(lock)) => {
            lock.as_bool() == Some(false)
                || lock.as_i32() == Some(0)
                || lock.as_i64() == Some(0)
                || lock.as_f64() == Some(0.0)
        }
        Err(_) => false,
    });
    if unlocked { None } else { forbidden("fsyncUnlock") }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn what_breaks_a_promise_is_refused_and_the_rest_passes() {
        for (command, row) in [
            ("shutdown", Some(PROCESS)),
            ("replSetReconfig", Some(MEMBERSHIP)),
            ("replSetStepDown", Some(MEMBERSHIP)),
            ("replSetResizeOplog", Some(MEMBERSHIP)),
            ("setFeatureCompatibilityVersion", Some(FORMAT)),
            ("fsyncUnlock", Some(LOCK)),
            ("setParameter", Some(PARAMETERS)),
            ("configureFailPoint", Some(PARAMETERS)),
            ("logRotate", Some(HOST)),
            ("rotateCertificates", Some(HOST)),
            ("dropConnections", Some(HOST)),
            ("addShard", Some(SHARDING)),
            ("transitionToDedicatedConfigServer", Some(SHARDING)),
            ("recipientSyncData", Some(MIGRATION)),
            ("_configsvrAddShard", Some(INTERNAL)),
            ("_shardsvrMovePrimary", Some(INTERNAL)),
            ("_mergeAuthzCollections", None),
            ("applyOps", None),
            ("compact", None),
            ("setDefaultRWConcern", None),
            ("setClusterParameter", None),
            ("SHUTDOWN", None),
            ("", None),
        ] {
            assert_eq!(forbidden(command), row.as_ref(), "{command}");
        }
    }

    #[test]
    fn nothing_is_in_the_table_twice() {
        let mut all: Vec<_> = TABLE.iter().flat_map(|row| row.commands).collect();
        all.sort();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn fsync_may_not_lock() {
        for (command, refused) in [
            (Some(rawdoc! { "fsync": 1 }), false),
            (Some(rawdoc! { "fsync": 1, "lock": false }), false),
            (Some(rawdoc! { "fsync": 1, "lock": 0 }), false),
            (Some(rawdoc! { "fsync": 1, "lock": true }), true),
            (Some(rawdoc! { "fsync": 1, "lock": 1.0 }), true),
            (Some(rawdoc! { "fsync": 1, "lock": "no" }), true),
            (None, true),
        ] {
            assert_eq!(forbidden_arguments(command.as_deref()).is_some(), refused, "{command:?}");
        }
    }
}
