//! The replies made here: errors with the labels that tell drivers what is safe to retry, and the
//! answers to commands that tidy up on a branch where there is nothing to tidy.
//! Source: drivers' specifications `retryable-writes`, `transactions`; codes: mongod's
//! `error_codes.yml`.

use std::error::Error;

use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};

use super::address::{ADDRESS_HINT, AddressError};
use super::class::Cleanup;
use super::skim::Found;
use crate::branch::BranchError;
use crate::wire::WireError;

/// A server's error code and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) i32, pub(super) &'static str);

impl Code {
    /// Something is wrong that neither the client nor time can mend.
    pub(super) const INTERNAL: Self = Self(1, "InternalError");
    /// The branch cannot be reached now. Drivers retry reads on it, and unlike the codes of a
    /// server that steps down it does not make them throw their connections away.
    pub(super) const UNREACHABLE: Self = Self(6, "HostUnreachable");
    /// The command is not for clients.
    pub(super) const UNAUTHORIZED: Self = Self(13, "Unauthorized");
    /// The connection string is wrong: it names no branch, or one that is not there. Not
    /// NamespaceNotFound, which drivers and tools swallow as "an empty database"; not
    /// Unauthorized, which makes shells ask for a password.
    pub(super) const BAD_ADDRESS: Self = Self(72, "InvalidOptions");
    /// Only where this server itself ends: it makes drivers drop their connections, which is then
    /// right.
    pub(super) const SHUTDOWN: Self = Self(91, "ShutdownInProgress");
    /// The cursor is gone with the life of the branch that it belonged to. The one code on which a
    /// change stream of any age resumes.
    pub(super) const NO_CURSOR: Self = Self(43, "CursorNotFound");
    /// The transaction is gone with the life of the branch that it belonged to.
    pub(super) const NO_TRANSACTION: Self = Self(251, "NoSuchTransaction");
    /// OP_QUERY is for what drivers ask first, and what is answered here.
    pub(super) const OLD_QUERY: Self = Self(352, "UnsupportedOpQueryCommand");
}

/// An error that a client is told, and its connection lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The code.
    pub(super) code: Code,
    /// For people: what is wrong, and what to do.
    pub(super) message: String,
    /// Whether the same command may succeed later.
    pub(super) retry: Retry,
}

/// Whether the same command may succeed later without anybody changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// It will not.
    Useless,
    /// It may.
    Worthwhile(Sent),
}

/// How much of the command the branch's mongod got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Not all of it, so that it was not executed.
    No,
    /// All: it may have been executed.
    Yes,
}

impl Refusal {
    /// The reply's document, labelled for the command that it answers.
    pub(super) fn document(&self, command: &Found) -> RawDocumentBuf {
        let Code(code, name) = self.code;
        let mut reply =
            rawdoc! { "ok": 0.0, "errmsg": &*self.message, "code": code, "codeName": name };
        let labels = match self.retry {
            Retry::Useless => &[],
            Retry::Worthwhile(sent) => labels(command, sent),
        };
        if !labels.is_empty() {
            let labels: RawArrayBuf = labels.iter().copied().collect();
            reply.append(cstr!("errorLabels"), labels);
        }
        reply
    }

    /// The connection string names no branch.
    pub(super) fn of_address(error: &AddressError) -> Self {
        let message = match error.source() {
            Some(source) => format!("{error}: {source}; {ADDRESS_HINT}"),
            None => format!("{error}; {ADDRESS_HINT}"),
        };
        Self { code: Code::BAD_ADDRESS, message, retry: Retry::Useless }
    }

    /// The branch cannot be used, now or ever.
    pub(super) fn of_branch(error: &BranchError) -> Self {
        let code = match error {
            BranchError::Closing => Code::SHUTDOWN,
            error if error.retryable() => Code::UNREACHABLE,
            BranchError::Name(_)
            | BranchError::UnknownProject { .. }
            | BranchError::NoProject
            | BranchError::WhichProject { .. }
            | BranchError::UnknownBranch { .. }
            | BranchError::Deleted { .. } => Code::BAD_ADDRESS,
            _ => Code::INTERNAL,
        };
        let hint = match code {
            Code::BAD_ADDRESS => Some(ADDRESS_HINT.to_owned()),
            _ => error.hint(),
        };
        let mut message = error.chain();
        if let Some(hint) = hint {
            message = format!("{message}; {hint}");
        }
        let retry = match error.retryable() {
            true => Retry::Worthwhile(Sent::No),
            false => Retry::Useless,
        };
        Self { code, message, retry }
    }

    /// The branch runs, but its mongod does not do its part.
    pub(super) fn unreachable(error: &WireError, sent: Sent) -> Self {
        let mut message = format!("the branch's server broke off: {error}");
        if let Some(source) = error.source() {
            message = format!("{message}: {source}");
        }
        Self { code: Code::UNREACHABLE, message, retry: Retry::Worthwhile(sent) }
    }

    /// The branch's mongod answered that it is being stopped.
    pub(super) fn stopping(last_words: &str) -> Self {
        let message = format!("the branch's server is being stopped: it answered {last_words}");
        Self { code: Code::UNREACHABLE, message, retry: Retry::Worthwhile(Sent::Yes) }
    }

    /// The branch's mongod answered, but another server may have the branch by now.
    pub(super) fn lapsed() -> Self {
        let message = "this server's lease on the branch ended before the reply came; \
                       try again: what was written may or may not be there"
            .to_owned();
        Self { code: Code::UNREACHABLE, message, retry: Retry::Worthwhile(Sent::Yes) }
    }

    /// This server ends before the branch is awake.
    pub(super) fn shutting_down() -> Self {
        let message = "the server is shutting down".to_owned();
        Self { code: Code::SHUTDOWN, message, retry: Retry::Worthwhile(Sent::No) }
    }

    /// As OP_REPLY has it: old drivers look for `$err`.
    pub(super) fn query_failure(&self) -> RawDocumentBuf {
        let mut reply = self.document(&Found::default());
        reply.append(cstr!("$err"), &*self.message);
        reply
    }
}

/// The labels of an error after which a retry may succeed. Newer drivers retry writes only where
/// the server says that it is safe.
fn labels(command: &Found, sent: Sent) -> &'static [&'static str] {
    let ends_transaction =
        matches!(command.command.as_deref(), Some("commitTransaction" | "abortTransaction"));
    match (command.has_txn_number, command.in_transaction, sent) {
        // These two are retryable writes themselves; whether an earlier try did the work is open.
        (true, _, _) if ends_transaction => &["RetryableWriteError"],
        (_, true, _) => &["TransientTransactionError"],
        (true, false, Sent::Yes) => &["RetryableWriteError"],
        (true, false, Sent::No) => &["RetryableWriteError", "NoWritesPerformed"],
        // What else a cursor reads is the reader's to begin anew; only change streams look for this.
        (false, false, _) if command.command.as_deref() == Some("getMore") => {
            &["ResumableChangeStreamError"]
        }
        (false, false, _) => &[],
    }
}

/// What a branch without a mongod answers to a command that goes on with a transaction or a cursor:
/// both lived in the mongod that is gone.
pub(super) fn dead_reference(command: &Found) -> RawDocumentBuf {
    let labels: &[&str] = match command.in_transaction {
        true => &["TransientTransactionError"],
        false => &[],
    };
    let (Code(code, name), what) = match command.in_transaction {
        true => (Code::NO_TRANSACTION, "transaction"),
        false => (Code::NO_CURSOR, "cursor"),
    };
    let message = format!("the branch was suspended, and the {what} ended with it");
    let mut reply = rawdoc! { "ok": 0.0, "errmsg": message, "code": code, "codeName": name };
    if !labels.is_empty() {
        reply.append(cstr!("errorLabels"), labels.iter().copied().collect::<RawArrayBuf>());
    }
    reply
}

/// What a branch without a mongod answers to a command that tidies up: what it could name went
/// with the branch's last life. `command` is its document, where it was small enough to be read.
pub(super) fn nothing_to_tidy(cleanup: Cleanup, command: Option<&RawDocument>) -> RawDocumentBuf {
    match cleanup {
        Cleanup::EndSessions | Cleanup::Logout => rawdoc! { "ok": 1.0 },
        Cleanup::KillCursors => {
            let cursors = command.and_then(|command| command.get_array("cursors").ok());
            let cursors = cursors.map(ToOwned::to_owned).unwrap_or_default();
            let none = RawArrayBuf::new;
            rawdoc! {
                "cursorsKilled": none(),
                "cursorsNotFound": cursors,
                "cursorsAlive": none(),
                "cursorsUnknown": none(),
                "ok": 1.0,
            }
        }
        Cleanup::AbortTransaction => {
            dead_reference(&Found { in_transaction: true, ..Found::default() })
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;

    #[test]
    fn what_keeps_a_branch_from_waking_is_told_with_what_to_do() {
        let branch: crate::base::name::Name = "dev".parse().unwrap();
        let low = BranchError::LowDisk { path: "/data".into(), free: 5, least: 9 };
        let wake = BranchError::Wake { branch: branch.clone(), source: low.clone().into() };
        let held = BranchError::Held { branch, reason: "its log is torn".into() };
        let again = Retry::Worthwhile(Sent::No);
        for (error, api, code, retry, words) in [
            (
                low,
                ("low_disk", 503),
                Code::UNREACHABLE,
                again,
                "room on /data, or lower --min-free",
            ),
            (wake, ("low_disk", 503), Code::UNREACHABLE, again, "5 bytes are free on the disk"),
            (held, ("branch_held", 409), Code::INTERNAL, Retry::Useless, "recover dev --salvage"),
        ] {
            assert_eq!((error.code(), error.http_status()), api);
            let refusal = Refusal::of_branch(&error);
            assert!(refusal.code == code && refusal.retry == retry, "{refusal:?}");
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }

    #[test]
    fn labels_say_what_is_safe_to_retry() {
        const WRITE: &str = "RetryableWriteError";
        const NONE: &str = "NoWritesPerformed";
        const TRANSIENT: &str = "TransientTransactionError";
        type Labels = &'static [&'static str];
        const RESUMABLE: &str = "ResumableChangeStreamError";
        let rows: [(&str, bool, bool, Labels, Labels); 8] = [
            // command, txnNumber, autocommit: false, labels when sent, when not sent
            ("find", false, false, &[], &[]),
            ("insert", false, false, &[], &[]),
            ("getMore", false, false, &[RESUMABLE], &[RESUMABLE]),
            ("getMore", true, true, &[TRANSIENT], &[TRANSIENT]),
            ("insert", true, false, &[WRITE], &[WRITE, NONE]),
            ("insert", true, true, &[TRANSIENT], &[TRANSIENT]),
            ("commitTransaction", true, true, &[WRITE], &[WRITE]),
            ("abortTransaction", true, true, &[WRITE], &[WRITE]),
        ];
        for (command, has_txn_number, in_transaction, sent, unsent) in rows {
            let found = Found {
                command: Some(command.to_owned()),
                has_txn_number,
                in_transaction,
                ..Found::default()
            };
            for (retry, expected) in [
                (Retry::Worthwhile(Sent::Yes), sent),
                (Retry::Worthwhile(Sent::No), unsent),
                (Retry::Useless, &[]),
            ] {
                let refusal =
                    Refusal { code: Code::UNREACHABLE, message: "asleep".to_owned(), retry };
                let mut wanted = doc! {
                    "ok": 0.0, "errmsg": "asleep", "code": 6, "codeName": "HostUnreachable",
                };
                if !expected.is_empty() {
                    wanted.insert("errorLabels", expected);
                }
                let document = Document::try_from(&*refusal.document(&found)).unwrap();
                assert_eq!(document, wanted, "{command} {retry:?}");
            }
        }
    }

    #[test]
    fn nothing_is_left_to_tidy_on_a_branch_that_sleeps() {
        let command = rawdoc! { "killCursors": "c", "cursors": [5_i64, 6_i64] };
        let killed = |cursors: bson::Bson| {
            doc! {
                "cursorsKilled": [], "cursorsNotFound": cursors,
                "cursorsAlive": [], "cursorsUnknown": [], "ok": 1.0,
            }
        };
        let empty = bson::Bson::Array(Vec::new());
        for (cleanup, command, expected) in [
            (Cleanup::EndSessions, None, doc! { "ok": 1.0 }),
            (Cleanup::Logout, None, doc! { "ok": 1.0 }),
            (Cleanup::KillCursors, Some(&*command), killed(bson::bson!([5_i64, 6_i64]))),
            (Cleanup::KillCursors, None, killed(empty)),
        ] {
            let found = nothing_to_tidy(cleanup, command);
            assert_eq!(Document::try_from(&*found).unwrap(), expected, "{cleanup:?}");
        }
        let aborted = nothing_to_tidy(Cleanup::AbortTransaction, None);
        assert_eq!(aborted.get_i32("code").unwrap(), 251);
    }

    #[test]
    fn what_a_life_began_is_dead_without_it() {
        for (in_transaction, code, name, labels) in
            [(false, 43, "CursorNotFound", 0), (true, 251, "NoSuchTransaction", 1)]
        {
            let reply = dead_reference(&Found { in_transaction, ..Found::default() });
            let reply = Document::try_from(&*reply).unwrap();
            assert_eq!(reply.get_i32("code").unwrap(), code);
            assert_eq!(reply.get_str("codeName").unwrap(), name);
            assert_eq!(reply.get_array("errorLabels").map_or(0, Vec::len), labels);
        }
    }
}
