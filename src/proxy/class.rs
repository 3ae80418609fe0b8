//! What a command is to the proxy: one table, decided by the command's name alone.

use crate::base::metrics::CommandClass;

/// How a command is treated. The classes of the design's table; the dead references among the
/// commands are told by mongod itself, which knows no cursor or transaction of an earlier life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Answered here, always.
    Local(Local),
    /// Tidies up on the server. A branch that is not running has nothing to tidy.
    Cleanup(Cleanup),
    /// Forwarded and waited for, but no work: it does not keep a branch awake.
    Probe,
    /// Forwarded and waited for; keeps the branch awake. Everything unknown is work.
    Work,
    /// Never forwarded; the text says why.
    Refused(&'static str),
}

/// Commands that are answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    /// `hello`: `isWritablePrimary` in the answer.
    Hello,
    /// `isMaster`, its older name: `ismaster` in the answer.
    IsMaster,
    /// `ping`.
    Ping,
    /// `buildInfo`.
    BuildInfo,
}

/// Commands that only tidy up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cleanup {
    /// `endSessions`.
    EndSessions,
    /// `killCursors`.
    KillCursors,
    /// `abortTransaction`.
    AbortTransaction,
    /// `logout`.
    Logout,
}

impl Class {
    /// What it is counted as.
    pub(super) fn counted(self) -> CommandClass {
        match self {
            Self::Local(_) => CommandClass::Local,
            Self::Cleanup(_) => CommandClass::Cleanup,
            Self::Probe => CommandClass::Probe,
            Self::Work => CommandClass::Work,
            Self::Refused(_) => CommandClass::Refused,
        }
    }
}

const OWN_MEMBERSHIP: &str = "Argon runs each branch's server and owns its replica set";
const OWN_PROCESS: &str = "Argon starts and stops each branch's server itself; \
                           `argon branch suspend` puts the branch to sleep";

/// The class of the command of this name. Names are compared as mongod does: with their case, and
/// with the old spellings that it still takes.
pub(super) fn classify(command: &str) -> Class {
    match command {
        "hello" => Class::Local(Local::Hello),
        "isMaster" | "ismaster" => Class::Local(Local::IsMaster),
        "ping" => Class::Local(Local::Ping),
        "buildInfo" | "buildinfo" => Class::Local(Local::BuildInfo),

        "endSessions" => Class::Cleanup(Cleanup::EndSessions),
        "killCursors" => Class::Cleanup(Cleanup::KillCursors),
        "abortTransaction" => Class::Cleanup(Cleanup::AbortTransaction),
        "logout" => Class::Cleanup(Cleanup::Logout),

        // Logging in is mongod's to judge, but pools log in in the background: no work.
        "saslStart" | "saslContinue" | "authenticate" | "getnonce" => Class::Probe,
        "connPoolStats" | "connectionStatus" | "currentOp" | "features" | "getCmdLineOpts"
        | "getDiagnosticData" | "getLog" | "getParameter" | "hostInfo" | "listCommands"
        | "lockInfo" | "replSetGetConfig" | "replSetGetStatus" | "serverStatus" | "top"
        | "whatsmyuri" => Class::Probe,

        "shutdown" => Class::Refused(OWN_PROCESS),
        "replSetAbortPrimaryCatchUp"
        | "replSetFreeze"
        | "replSetHeartbeat"
        | "replSetInitiate"
        | "replSetMaintenance"
        | "replSetReconfig"
        | "replSetRequestVotes"
        | "replSetStepDown"
        | "replSetStepUp"
        | "replSetSyncFrom"
        | "replSetUpdatePosition" => Class::Refused(OWN_MEMBERSHIP),

        _ => Class::Work,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_class_of_the_design() {
        let rows: [(&[&str], Class); 11] = [
            (&["hello"], Class::Local(Local::Hello)),
            (&["isMaster", "ismaster"], Class::Local(Local::IsMaster)),
            (&["ping"], Class::Local(Local::Ping)),
            (&["buildInfo", "buildinfo"], Class::Local(Local::BuildInfo)),
            (&["endSessions"], Class::Cleanup(Cleanup::EndSessions)),
            (&["killCursors"], Class::Cleanup(Cleanup::KillCursors)),
            (&["abortTransaction"], Class::Cleanup(Cleanup::AbortTransaction)),
            (&["serverStatus", "top", "currentOp", "connectionStatus", "getLog"], Class::Probe),
            (
                &["find", "insert", "getMore", "commitTransaction", "aggregate", "", "HELLO", "x"],
                Class::Work,
            ),
            (&["shutdown"], Class::Refused(OWN_PROCESS)),
            (&["replSetReconfig", "replSetStepDown"], Class::Refused(OWN_MEMBERSHIP)),
        ];
        for (names, class) in rows {
            for name in names {
                assert_eq!(classify(name), class, "{name}");
            }
        }
    }
}
