//! Which branch a client means: `appName=argon.<project>/<branch>`, or `argon.<branch>` where the
//! project is the only one.

use thiserror::Error;

use crate::base::name::{InvalidName, Name};
use crate::branch::Door;

/// The prefix is required: tools set appNames of their own.
const PREFIX: &str = "argon.";

/// A branch, named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Its project; `None` is the default.
    pub(super) project: Option<Name>,
    /// Its name.
    pub(super) branch: Name,
}

/// Why an appName names no branch.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum AddressError {
    /// There is none.
    #[error("the connection string names no branch")]
    Missing,
    /// It is somebody else's.
    #[error("the connection string names no branch: its appName is `{0}`")]
    Foreign(String),
    /// The way that the client came by belongs to another branch.
    #[error("the appName `{app_name}` names a branch, and {door} is for branch `{owner}` alone")]
    Disagree {
        /// The whole appName.
        app_name: String,
        /// The port or socket.
        door: String,
        /// Whose it is.
        owner: String,
    },
    /// It has the prefix, and then no names.
    #[error("the appName `{text}` names no branch")]
    Name {
        /// The whole appName.
        text: String,
        /// What is wrong with it.
        #[source]
        source: InvalidName,
    },
}

impl Address {
    /// Reads what the client's first hello gave as `application.name`.
    pub(super) fn parse(app_name: Option<&str>) -> Result<Self, AddressError> {
        let text = app_name.filter(|text| !text.is_empty()).ok_or(AddressError::Missing)?;
        let rest = text.strip_prefix(PREFIX);
        let rest = rest.ok_or_else(|| AddressError::Foreign(text.to_owned()))?;
        let name = |part: &str| {
            part.parse().map_err(|source| AddressError::Name { text: text.to_owned(), source })
        };
        Ok(match rest.split_once('/') {
            Some((project, branch)) => {
                Self { project: Some(name(project)?), branch: name(branch)? }
            }
            None => Self { project: None, branch: name(rest)? },
        })
    }

    /// Checks what a client said that came by a branch's own port or socket. Its appName need name
    /// no branch, but must not name another one.
    pub(super) fn check(door: &Door, app_name: Option<&str>) -> Result<(), AddressError> {
        match Self::parse(app_name) {
            Err(AddressError::Missing | AddressError::Foreign(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(Self { project, branch })
                if branch == door.name && project.as_ref().is_none_or(|p| *p == door.project) =>
            {
                Ok(())
            }
            Ok(_) => Err(AddressError::Disagree {
                app_name: app_name.unwrap_or_default().to_owned(),
                door: door.at.clone(),
                owner: format!("{}/{}", door.project, door.name),
            }),
        }
    }
}

/// What helps whoever got the address wrong.
pub(super) const ADDRESS_HINT: &str = "put `appName=argon.<project>/<branch>` into the connection \
     string; `argon connect <branch>` prints it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_names_are_read() {
        let long = format!("argon.{}", "a".repeat(64));
        type Expected<'a> = Result<(Option<&'a str>, &'a str), &'a str>;
        let rows: &[(Option<&str>, Expected)] = &[
            (Some("argon.shop/dev"), Ok((Some("shop"), "dev"))),
            (Some("argon.dev"), Ok((None, "dev"))),
            (None, Err("the connection string names no branch")),
            (Some(""), Err("the connection string names no branch")),
            (
                Some("mongosh 2.1"),
                Err("the connection string names no branch: its appName is `mongosh 2.1`"),
            ),
            (
                Some("Argon.dev"),
                Err("the connection string names no branch: its appName is `Argon.dev`"),
            ),
            (Some("argon."), Err("the appName `argon.` names no branch")),
            (Some("argon./dev"), Err("the appName `argon./dev` names no branch")),
            (Some("argon.shop/"), Err("the appName `argon.shop/` names no branch")),
            (Some("argon.a/b/c"), Err("the appName `argon.a/b/c` names no branch")),
            (Some("argon.Dev"), Err("the appName `argon.Dev` names no branch")),
            (Some(&long), Err(&*format!("the appName `{long}` names no branch"))),
        ];
        for (app_name, expected) in rows {
            let found = Address::parse(*app_name);
            match expected {
                Ok((project, branch)) => {
                    let found = found.unwrap();
                    assert_eq!(found.project.as_ref().map(Name::as_str), *project);
                    assert_eq!(found.branch.as_str(), *branch);
                }
                Err(text) => assert_eq!(found.unwrap_err().to_string(), *text),
            }
        }
    }
}
