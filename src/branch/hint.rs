//! What somebody can do next whom something went wrong for.

use super::BranchError;
use crate::volume::VolumeError;

impl BranchError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownProject { .. } => "see `argon project list`".into(),
            Self::ProjectExists { .. } => "take another name; see `argon project list`".into(),
            Self::NoProject => "make one: `argon project create NAME`".into(),
            Self::WhichProject { .. } => "name one: `--project NAME`, or ARGON_PROJECT".into(),
            Self::ProjectNotEmpty { .. } => {
                "delete its branches first: `argon branch delete`".into()
            }
            Self::NoUpgrade { branch, refusal } => refusal.hint(branch.as_str()),
            Self::Upgrade { source, .. } => return source.hint(),
            Self::NotClean { branch } => format!(
                "`argon branch resume {branch}` and `argon branch suspend --wait {branch}` first"
            ),
            Self::OtherBase { .. } => {
                "make another project with --image, or set the archive back: `argon base set`"
                    .into()
            }
            Self::Compute { source } if source.hint().is_some() => return source.hint(),
            Self::UnknownBranch { project, .. } => {
                format!("see `argon branch list --project {project}`, with --deleted too")
            }
            Self::BranchExists { .. } => "take another name, or delete that branch first".into(),
            Self::NotDeleted { .. } => "see `argon branch list --deleted`".into(),
            Self::Deleted { branch } => format!("bring it back: `argon branch undelete {branch}`"),
            Self::Held { branch, .. } => format!(
                "`argon branch recover {branch} --last-version` puts those writes aside and goes \
                 on from the last version; `argon branch recover {branch} --salvage` takes what \
                 can be read up to the damage as a new version"
            ),
            Self::NotHeld { branch } => format!("see `argon branch show {branch}`"),
            Self::CatalogNotEmpty { .. } => {
                "move catalog.sqlite and the files beside it that begin so out of the data \
                 directory, if they are to be replaced"
                    .into()
            }
            Self::CatalogLost { .. } => {
                "`argon repair --from-store`, with the settings of this server, makes it again"
                    .into()
            }
            Self::StoreEmpty { .. } => "look at the settings of the store and --data-dir".into(),
            Self::StoreDamaged { .. } => {
                "`argon repair --from-store --keep-going` leaves out what cannot be read".into()
            }
            Self::KeepNone => "take 1 or more: --keep-last 1".into(),
            Self::NoVersion { .. } => "see `argon branch list-versions NAME`".into(),
            Self::UnknownVersion { branch, .. } | Self::BeforeFirstVersion { branch, .. } => {
                format!("see `argon branch list-versions {branch}`")
            }
            Self::LabelTaken { branch, .. } => {
                format!("take another label; see `argon branch list-versions {branch}`")
            }
            Self::WakeTimeout { branch, .. } | Self::Crowded { branch, .. } => {
                format!("try again; `argon branch show {branch}` tells how it stands")
            }
            Self::LowDisk { path, .. } => {
                format!("make room on {}, or lower --min-free", path.display())
            }
            Self::Wake { branch, source } if source.is_damage() => format!(
                "see what else is hurt: `argon scrub`; an earlier version may be whole: `argon \
                 branch list-versions {branch}`, `argon branch time-travel NEW --from-branch \
                 {branch} --version-id ID`"
            ),
            Self::Wake { source, .. } | Self::Head { source, .. } => return source.hint(),
            Self::Save { branch, source, .. } => {
                let next =
                    format!("it is tried again by itself; or `argon branch suspend {branch}`");
                source.hint().map_or(next.clone(), |hint| format!("{hint}; {next}"))
            }
            Self::MongodVersion { image: Some(image), .. } => format!(
                "bring the image that wrote it: `docker pull {image}` (or `docker load`), and run \
                 the server with --compute docker"
            ),
            Self::MongodVersion { volume, .. } => {
                format!("run the server with a mongod {volume} (ARGON_MONGOD)")
            }
            Self::Elsewhere { branch, left, .. } => format!(
                "connect there, or `argon branch suspend {branch}` there; if that server is gone, \
                 this one takes over when it has seen no sign of it for {} s more",
                left.as_secs() + 1
            ),
            Self::Lost { branch, rescued, .. } => format!(
                "compare `{rescued}` with `{branch}`, and delete it when you have what you need"
            ),
            Self::Lapsed { .. } => {
                "try again: it goes on by itself when the store can be reached".into()
            }
            Self::SameServer { .. } => {
                "a data directory belongs to one server: stop one, and give it a directory of its \
                 own"
                .into()
            }
            Self::TooManyClients { .. } => {
                "close connections (is a client made for every request?), or raise \
                 --max-branch-connections"
                    .into()
            }
            Self::Listen { .. } => {
                "take another port: `--port N`, or none to get a free one".into()
            }
            Self::SocketPath { branch, .. } => {
                format!("use `argon branch port {branch}`, or a shorter --data-dir")
            }
            Self::Compute { source } => return source.hint(),
            Self::Closing => "try again when it is up again".into(),
            Self::Volume { source } if matches!(**source, VolumeError::OtherCollector) => {
                "it does the work; `argon gc --dry-run` shows what is left".into()
            }
            Self::Volume { source } if matches!(**source, VolumeError::Condemned { .. }) => {
                "take another version: `argon branch list-versions NAME`".into()
            }
            _ if self.is_damage() => {
                "see what is hurt: `argon scrub`; earlier versions may be whole".into()
            }
            _ if self.is_full() => "make room on the disk".into(),
            _ => return None,
        })
    }
}
