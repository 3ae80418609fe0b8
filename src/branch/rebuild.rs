//! A lost catalog, made again from the store.
//!
//! Everything that users can see is an object: projects with their rules, heads, versions, pins. What
//! is made here is entered in one transaction, into a catalog that has no project and no branch, so
//! that a rebuild which was cut off leaves nothing, and one that is repeated is refused. Nothing in
//! the store is changed but a project's object that is missing or damaged.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::error::chain;
use super::local::{Layout, Unsaved};
use super::reconcile::version_row;
use super::retention::kept;
use super::{BranchError, identity};
use crate::base::clock::Clock;
use crate::base::ids::{ProjectId, ServerId, VersionId};
use crate::base::limits::NAME_BYTES;
use crate::base::name::Name;
use crate::base::retention::Retention;
use crate::catalog::{BranchRow, Catalog, Contents, LocalData, ProjectRow, VersionRow};
use crate::store::Store;
use crate::volume::{Head, Project, Survey, Version, Volumes};

/// Characters of an id that tell two of one name apart.
const ID_TAIL: usize = 6;

/// What to do about objects that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Name them and enter nothing.
    Refuse,
    /// Name them and enter the rest.
    Skip,
}

/// What was entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Projects.
    pub projects: usize,
    /// Live branches.
    pub branches: usize,
    /// Deleted branches.
    pub deleted: usize,
    /// Versions.
    pub versions: usize,
    /// Pinned ones among them.
    pub pinned: usize,
    /// Branches whose unsaved writes are on this disk, as `PROJECT/BRANCH`.
    pub unsaved: Vec<String>,
    /// What somebody should know, one sentence each.
    pub notes: Vec<String>,
}

/// Fills a catalog that has no project and no branch with what the store holds, and takes in
/// unsaved writes that are in the data directory. No server may run on that.
///
/// # Errors
/// The catalog is not empty, the store is, or something in it cannot be read: then nothing was
/// entered.
pub async fn rebuild(
    catalog: &Catalog,
    store: Arc<dyn Store>,
    data_dir: &Path,
    clock: Arc<dyn Clock>,
    damage: Damage,
) -> Result<Rebuilt, BranchError> {
    let counts = catalog.counts()?;
    if counts != (0, 0) {
        let (projects, branches) = counts;
        return Err(BranchError::CatalogNotEmpty { projects, branches });
    }
    let volumes = Volumes::new(store.clone(), clock.clone());
    let survey = volumes.survey().await?;
    if survey.heads.is_empty() && survey.projects.is_empty() && survey.damaged.is_empty() {
        return Err(BranchError::StoreEmpty { store: store.describe() });
    }
    volumes.prepare().await?;
    let server = identity::of_directory(catalog, data_dir, &*clock)?;
    let layout = Layout::new(data_dir, server)?;
    let unsaved = layout.unsaved()?;
    let Plan { contents, missing, aside, problems, mut rebuilt } = plan(survey, unsaved, server);
    match damage {
        Damage::Skip => rebuilt.notes.splice(0..0, problems).for_each(drop),
        Damage::Refuse if !problems.is_empty() => {
            return Err(BranchError::StoreDamaged { problems });
        }
        Damage::Refuse => {}
    }
    for unsaved in aside {
        let kept = layout.put_aside(&unsaved)?;
        rebuilt.notes.push(format!(
            "data of branch {}, which another server may have or which is saved already, was put \
             aside in {}",
            unsaved.branch,
            kept.display()
        ));
    }
    catalog.fill(&contents)?;
    for project in &missing {
        volumes.save_project(&kept(project)).await?;
    }
    Ok(rebuilt)
}

/// What is to be entered and done.
struct Plan {
    contents: Contents,
    /// Projects that have no sound object in the store.
    missing: Vec<ProjectRow>,
    /// Working directories that no branch may use.
    aside: Vec<Unsaved>,
    /// What somebody must agree to.
    problems: Vec<String>,
    rebuilt: Rebuilt,
}

fn plan(mut survey: Survey, unsaved: Vec<Unsaved>, server: ServerId) -> Plan {
    let mut notes = Vec::new();
    let mut problems: Vec<_> = survey.damaged.iter().map(|error| chain(error)).collect();
    let pins: HashSet<_> = survey.pins.iter().copied().collect();
    let row = |version: &Version| VersionRow {
        pinned: pins.contains(&version.id),
        ..version_row(version)
    };
    let mut versions: BTreeMap<_, _> = survey.versions.iter().map(|v| (v.id, row(v))).collect();
    let known: HashSet<_> = versions.keys().copied().collect();

    let (mut projects, missing) = projects(&survey, &known, &mut notes);
    unlike(&mut projects, |project| ((), project.id.to_string(), &mut project.name), &mut notes);
    let missing =
        projects.iter().filter(|project| missing.contains(&project.id)).cloned().collect();

    // Whoever has lived longer keeps a name that two have: the other is what a crash left.
    survey.heads.sort_by_key(|head| (Reverse(head.epoch), head.created, head.branch));
    for head in survey.heads.iter().filter(|head| !known.contains(&head.version)) {
        problems.push(format!(
            "branch {} stands on version {}, which is missing or damaged: it cannot wake, but \
             branches can be made from its older versions",
            full_name(head),
            head.version
        ));
        versions.insert(head.version, placeholder(head));
    }
    let rows = survey.heads.iter().map(|head| branch_row(head, &known));
    let (mut live, deleted): (Vec<_>, Vec<_>) = rows.partition(|row| row.deleted.is_none());
    let (taken, aside) = take_in(&mut live, &survey.heads, unsaved, server, &mut notes);
    let of_branch: Handle<BranchRow, ProjectId> =
        |branch| (branch.project, branch.id.to_string(), &mut branch.name);
    unlike(&mut live, of_branch, &mut notes);
    let rebuilt = Rebuilt {
        projects: projects.len(),
        branches: live.len(),
        deleted: deleted.len(),
        versions: known.len(),
        pinned: versions.values().filter(|version| version.pinned).count(),
        unsaved: taken,
        notes,
    };
    let branches = live.into_iter().chain(deleted).collect();
    let contents = Contents { versions: versions.into_values().collect(), projects, branches };
    Plan { contents, missing, aside, problems, rebuilt }
}

/// The projects, the oldest first, and which of them have no sound object: heads name those.
fn projects(
    survey: &Survey,
    known: &HashSet<VersionId>,
    notes: &mut Vec<String>,
) -> (Vec<ProjectRow>, HashSet<ProjectId>) {
    let mut rows: BTreeMap<_, _> = BTreeMap::new();
    for project in &survey.projects {
        let Project { id, name, created, base, retention, image } = project.clone();
        let (base, lost) = match base {
            Some(base) if !known.contains(&base) => (None, Some(base)),
            base => (base, None),
        };
        if let Some(lost) = lost {
            notes.push(format!(
                "project {name} lost its base, version {lost}: new branches load the archive again"
            ));
        }
        rows.insert(id, ProjectRow { id, name, created, base, retention, image });
    }
    let mut missing = HashSet::new();
    for head in &survey.heads {
        let entry = rows.entry(head.project);
        let row = entry.or_insert_with(|| {
            missing.insert(head.project);
            notes.push(format!(
                "project {} was made again from its branches: it has no base of its own, and keeps \
                 every version until `argon project retention` says otherwise",
                head.project_name
            ));
            ProjectRow {
                id: head.project,
                name: head.project_name.clone(),
                created: head.created,
                base: None,
                retention: Retention::from_ms(None, None, None),
                image: None,
            }
        });
        if missing.contains(&row.id) {
            row.created = row.created.min(head.created);
        }
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by_key(|row| (row.created, row.id));
    (rows, missing)
}

/// What [`unlike`] needs of a row: within what names differ, its id, and its name.
type Handle<T, S> = for<'t> fn(&'t mut T) -> (S, String, &'t mut Name);

/// Gives another name to each but the first of those that have one name.
fn unlike<T, S: Ord + Copy>(rows: &mut [T], handle: Handle<T, S>, notes: &mut Vec<String>) {
    let mut taken = BTreeSet::new();
    for row in rows {
        let (scope, id, name) = handle(row);
        if taken.insert((scope, name.clone())) {
            continue;
        }
        let tail = format!("-{}", &id[id.len() - ID_TAIL..]);
        let stem = &name.as_str()[..name.as_str().len().min(NAME_BYTES - tail.len())];
        let new: Name = format!("{}{tail}", stem.trim_end_matches('-'))
            .parse()
            .expect("a name and characters of an id are a name");
        notes.push(format!("another `{name}` ({id}) is called `{new}` now"));
        *name = new.clone();
        taken.insert((scope, new));
    }
}

/// Gives working directories to the branches whose writes they hold: those of which this server is
/// the owner. Returns the names of these, and the directories that others have, or may have, saved.
fn take_in(
    rows: &mut [BranchRow],
    heads: &[Head],
    unsaved: Vec<Unsaved>,
    server: ServerId,
    notes: &mut Vec<String>,
) -> (Vec<String>, Vec<Unsaved>) {
    let (mut taken, mut aside) = (Vec::new(), Vec::new());
    for directory in unsaved {
        let head = heads.iter().find(|head| head.branch == directory.branch);
        let row = rows.iter_mut().find(|row| row.id == directory.branch);
        match (head, row) {
            (Some(head), Some(row)) if head.owner == Some(server) => {
                row.local = LocalData::Present { base: head.version, saving: None };
                taken.push(full_name(head));
            }
            (Some(_), _) => aside.push(directory),
            (None, _) => notes.push(format!(
                "{} holds data of a branch that the store does not know: it was left there",
                directory.place.display()
            )),
        }
    }
    (taken, aside)
}

fn branch_row(head: &Head, known: &HashSet<VersionId>) -> BranchRow {
    let origin = head.origin.filter(|origin| known.contains(&origin.version));
    BranchRow {
        id: head.branch,
        project: head.project,
        name: head.branch_name.clone(),
        head: head.version,
        epoch: head.epoch,
        idle_timeout: head.idle_timeout,
        snapshot_every: head.snapshot_every,
        keep_warm: head.keep_warm,
        created: head.created,
        deleted: head.deleted,
        origin_branch: origin.map(|origin| origin.branch),
        origin_version: origin.map(|origin| origin.version),
        local: LocalData::None,
        error: None,
        port: None,
        socket: false,
        head_pending: false,
    }
}

/// For a version that cannot be read, so that its branch is known: the branch says what is wrong
/// when it is woken.
fn placeholder(head: &Head) -> VersionRow {
    VersionRow {
        id: head.version,
        branch: Some(head.branch),
        parent: None,
        created: head.version.made(),
        cause: "unknown".to_owned(),
        label: None,
        total_bytes: 0,
        new_bytes: 0,
        stored_bytes: 0,
        mongod_version: String::new(),
        fcv: String::new(),
        pinned: false,
    }
}

fn full_name(head: &Head) -> String {
    format!("{}/{}", head.project_name, head.branch_name)
}

#[cfg(test)]
mod tests;
