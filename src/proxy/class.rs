//! What a command is to the proxy: one table, decided by the command's name alone.

use super::forbidden::{Forbidden, forbidden};
use crate::base::metrics::CommandClass;

/// How a command is treated. The classes of the design's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Answered here, always.
    Local(Local),
    /// Tidies up on the server. A branch that is not running has nothing to tidy.
    Cleanup(Cleanup),
    /// Forwarded and waited for, but no work: it does not keep a branch awake.
    Probe,
    /// Work on something that only the present life of the branch can know. Without one, it is dead.
    Continuation,
    /// Work or refused: its arguments decide ([`forbidden_arguments`]).
    ///
    /// [`forbidden_arguments`]: super::forbidden::forbidden_arguments
    Guarded,
    /// Forwarded and waited for; keeps the branch awake. Everything unknown is work.
    Work,
    /// Never forwarded.
    Refused(&'static Forbidden),
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
            Self::Guarded | Self::Continuation | Self::Work => CommandClass::Work,
            Self::Refused(_) => CommandClass::Refused,
        }
    }
}

/// Whether the command may make its connection somebody's.
pub(super) fn logs_in(command: &str) -> bool {
    matches!(command, "saslStart" | "saslContinue" | "authenticate")
}

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
        | "replSetGetRBID" | "whatsmyuri" => Class::Probe,

        "fsync" => Class::Guarded,
        "getMore" => Class::Continuation,

        // Asked for all the time; the rest is looked up.
        "find" | "insert" | "update" | "delete" | "aggregate" | "count" | "distinct"
        | "findAndModify" | "findandmodify" | "commitTransaction" => Class::Work,
        other => forbidden(other).map_or(Class::Work, Class::Refused),
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
                &["find", "insert", "commitTransaction", "aggregate", "", "HELLO", "x", "compact"],
                Class::Work,
            ),
            (&["getMore"], Class::Continuation),
            (&["fsync"], Class::Guarded),
        ];
        for (names, class) in rows {
            for name in names {
                assert_eq!(classify(name), class, "{name}");
            }
        }
        assert!(matches!(classify("shutdown"), Class::Refused(_)));
    }
}
