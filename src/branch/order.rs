//! Which mongod may go on with what another wrote, when somebody says so: a pure function.
//!
//! MongoDB demands one major release after the other, each with data whose feature compatibility
//! version (FCV) is that of the release before:
//! https://www.mongodb.com/docs/manual/release-notes/8.0-upgrade-standalone/

use thiserror::Error;

use crate::compute::Build;
use crate::volume::MongodVersion;

/// Why one may not follow the other.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nothing would change.
    #[error("it runs in that image already")]
    Same,
    /// An older release does not open what a newer one wrote.
    #[error("its data are of mongod {from}, and that image has the older {to}")]
    Downgrade {
        /// What wrote the data.
        from: String,
        /// What the image has.
        to: String,
    },
    /// There is a release between them, or one of them is none that is followed by another.
    #[error("its data are of mongod {from}, and {to} is not the major release after that")]
    NotNext {
        /// What wrote the data.
        from: String,
        /// What the image has.
        to: String,
    },
    /// The data are still those of a release before.
    #[error("its data have the feature compatibility version {fcv}, and mongod {to} needs {needs}")]
    Fcv {
        /// That of the data.
        fcv: String,
        /// That of the release that wrote them.
        needs: String,
        /// What the image has.
        to: String,
    },
    /// Nobody knows which release that is.
    #[error("`{0}` is not a version of mongod")]
    Unknown(String),
}

/// Whether a mongod may go on with what another wrote.
pub(super) fn may_follow(from: &MongodVersion, to: &Build) -> Result<(), Refusal> {
    if from.version == to.version && from.image == to.image {
        return Err(Refusal::Same);
    }
    let (old, new) = (release(&from.version)?, release(&to.version)?);
    let versions = || (from.version.clone(), to.version.clone());
    if new < old {
        let (from, to) = versions();
        return Err(Refusal::Downgrade { from, to });
    }
    let ([old_major, old_minor, _], [new_major, new_minor, _]) = (old, new);
    if (old_major, old_minor) == (new_major, new_minor) {
        return Ok(());
    }
    if (old_major + 1, 0, 0) != (new_major, old_minor, new_minor) {
        let (from, to) = versions();
        return Err(Refusal::NotNext { from, to });
    }
    let needs = series(&from.version)?;
    if from.fcv != needs {
        let (fcv, to) = (from.fcv.clone(), to.version.clone());
        return Err(Refusal::Fcv { fcv, needs, to });
    }
    Ok(())
}

/// The feature compatibility version of a release: "7.0" of "7.0.12".
pub(super) fn series(version: &str) -> Result<String, Refusal> {
    let [major, minor, _] = release(version)?;
    Ok(format!("{major}.{minor}"))
}

/// The three numbers of "7.0.12" or "8.0.0-rc3".
fn release(version: &str) -> Result<[u32; 3], Refusal> {
    let unknown = || Refusal::Unknown(version.to_owned());
    let numbers = version.split('-').next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = numbers.split('.').map(|part| part.parse().ok()).collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(unknown)
}

impl Refusal {
    /// What to do next, for a branch of that name.
    pub(super) fn hint(&self, branch: &str) -> String {
        match self {
            Self::Same => format!("see `argon branch list-versions {branch}`"),
            Self::Downgrade { .. } => format!(
                "an older state runs in the image that wrote it: `argon branch time-travel NEW \
                 --from-branch {branch} --version-id LABEL`"
            ),
            Self::NotNext { .. } => "go by every major release: 6.0, 7.0, 8.0".to_owned(),
            Self::Fcv { needs, .. } => format!(
                "set it first, when no older mongod is to open them again: \
                 db.adminCommand({{setFeatureCompatibilityVersion: \"{needs}\"}})"
            ),
            Self::Unknown(_) => "name an image of a released mongod".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, fcv: &str, to: &str) -> Result<(), Refusal> {
        let from = MongodVersion {
            version: from.to_owned(),
            fcv: fcv.to_owned(),
            image: Some("a@sha256:1".to_owned()),
        };
        may_follow(&from, &Build { version: to.to_owned(), image: Some("a@sha256:2".to_owned()) })
    }

    #[test]
    fn one_major_release_follows_the_other() {
        for (from, fcv, to) in [
            ("6.0.5", "6.0", "6.0.5"),
            ("6.0.5", "6.0", "6.0.19"),
            // A release keeps what it has.
            ("6.0.5", "5.0", "6.0.19"),
            ("6.0.5", "6.0", "7.0.0"),
            ("7.0.12", "7.0", "8.0.0-rc3"),
            ("7.1.0", "7.1", "7.1.2"),
        ] {
            assert_eq!(check(from, fcv, to), Ok(()), "{from} ({fcv}) to {to}");
        }
    }

    #[test]
    fn what_mongodb_forbids_is_refused() {
        type Is = fn(&Refusal) -> bool;
        let (downgrade, not_next): (Is, Is) = (
            |refusal| matches!(refusal, Refusal::Downgrade { .. }),
            |refusal| matches!(refusal, Refusal::NotNext { .. }),
        );
        let rows: [(&str, &str, &str, Is); 9] = [
            ("6.0.5", "6.0", "6.0.4", downgrade),
            ("7.0.1", "6.0", "6.0.19", downgrade),
            ("10.0.0", "10.0", "9.0.0", downgrade),
            ("6.0.5", "6.0", "8.0.0", not_next),
            ("6.0.5", "6.0", "6.1.0", not_next),
            ("6.1.0", "6.1", "7.0.0", not_next),
            ("6.0.5", "6.0", "7.1.0", not_next),
            (
                "7.0.1",
                "6.0",
                "8.0.0",
                |refusal| matches!(refusal, Refusal::Fcv { needs, .. } if needs == "7.0"),
            ),
            ("6.0.5", "6.0", "seven", |refusal| matches!(refusal, Refusal::Unknown(_))),
        ];
        for (from, fcv, to, is) in rows {
            let refusal = check(from, fcv, to).unwrap_err();
            assert!(is(&refusal), "{from} ({fcv}) to {to}: {refusal}");
            assert!(!refusal.hint("dev").is_empty());
        }
    }

    #[test]
    fn the_same_image_is_no_upgrade() {
        let from = |image: Option<&str>| MongodVersion {
            version: "6.0.5".to_owned(),
            fcv: "6.0".to_owned(),
            image: image.map(str::to_owned),
        };
        let to = Build { version: "6.0.5".to_owned(), image: Some("a@sha256:1".to_owned()) };
        assert_eq!(may_follow(&from(Some("a@sha256:1")), &to), Err(Refusal::Same));
        // From a local process into an image.
        assert_eq!(may_follow(&from(None), &to), Ok(()));
    }
}
