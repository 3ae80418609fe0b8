//! Finds an overlay again that a process left behind.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Source;
use super::boot::Boot;
use super::disk::{next_data, zero};
use super::log::{self, Log, Reading};
use super::names::{Kind, Names, Replace};
use super::node::{Node, Origin, State};
use super::overlay::{Overlay, data_path, empty_names, files_in};
use super::pages::{PAGE_BYTES, PageMap};
use super::record::Record;
use crate::base::ids::VersionId;
use crate::mount::MountError;

/// What the log says of a file's content.
#[derive(Clone, Debug, Default)]
struct Facts {
    origin: Option<(u64, u64)>,
    present: PageMap,
    floor: Option<u64>,
    cut: Option<u64>,
    /// It was about to be cut.
    cutting: bool,
}

/// What the log says.
struct Replay {
    names: Names,
    facts: BTreeMap<u64, Facts>,
    dirty: bool,
}

/// Which version an overlay stands on.
pub(super) fn version(directory: &Path, reading: Reading) -> Result<VersionId, MountError> {
    let (records, _) = log::read(directory, reading)?;
    base(directory, &records)
}

fn base(directory: &Path, records: &[Record]) -> Result<VersionId, MountError> {
    match records.first() {
        Some(Record::Base { version }) => Ok(*version),
        _ => Err(damaged(directory, "its log does not say which version is below")),
    }
}

fn damaged(directory: &Path, reason: impl Into<String>) -> MountError {
    MountError::damaged(directory, reason)
}

impl Overlay {
    /// Reads an overlay. What was synced is there; of the rest what the disk has of it. Blocks.
    pub(super) fn recover(
        source: Arc<dyn Source>,
        directory: &Path,
        reading: Reading,
    ) -> Result<Self, MountError> {
        let (records, end) = log::read(directory, reading)?;
        let version = base(directory, &records)?;
        if version != source.version() {
            let reason = format!("it stands on version {version}, not {}", source.version());
            return Err(damaged(directory, reason));
        }
        if is_cut_off(&records) {
            return Self::create_anew(source, directory);
        }
        let mut replay = replay(records).map_err(|reason| damaged(directory, reason))?;
        replay.attach(&source, directory)?;
        replay.remove_strays(directory)?;
        let log = Log::open(directory, end)?;
        Ok(Self::over(directory, source, replay.names, log, replay.dirty, Boot::unseen()))
    }
}

/// Whether the start of a mongod on a fresh overlay was not over: then nothing that anybody wrote was
/// to be kept.
fn is_cut_off(records: &[Record]) -> bool {
    records.contains(&Record::Starting) && !records.contains(&Record::Started)
}

fn replay(records: Vec<Record>) -> Result<Replay, String> {
    let names = empty_names();
    let mut replay = Replay { names, facts: BTreeMap::new(), dirty: false };
    for (place, record) in records.into_iter().enumerate().skip(1) {
        let text = format!("{record:?}");
        let wrong = |error| format!("record {place} of its log, {text}, cannot be: {error}");
        replay.apply(record).map_err(wrong)?;
    }
    Ok(replay)
}

impl Replay {
    fn apply(&mut self, record: Record) -> io::Result<()> {
        let unfit = || io::Error::from_raw_os_error(libc::EINVAL);
        match record {
            Record::Base { .. } => return Err(unfit()),
            Record::Marker | Record::Starting | Record::Started => {}
            Record::Dirty => self.dirty = true,
            Record::Directory { node, parent, mode, name } => {
                self.names.may_create(parent, &name)?;
                self.names.add(Arc::new(Node::directory(node)), parent, &name, mode);
            }
            Record::File { node, parent, mode, origin, name } => {
                self.names.may_create(parent, &name)?;
                self.facts.insert(node, Facts { origin, ..Facts::default() });
                let file = Node::file(node, Path::new("").into(), State::default());
                self.names.add(Arc::new(file), parent, &name, mode);
            }
            Record::Rename { node, parent, name } => {
                let entry = self.names.entry(node)?;
                let from = (entry.parent, entry.name.clone());
                let to = (parent, name.as_str());
                let (_, target) = self.names.may_rename((from.0, &from.1), to, Replace::Yes)?;
                if let Some(target) = target {
                    self.remove(target);
                }
                self.names.rename(node, parent, &name);
            }
            Record::Remove { node } => {
                let entry = self.names.entry(node)?;
                let (parent, name, kind) = (entry.parent, entry.name.clone(), entry.kind());
                self.names.may_remove(parent, &name, kind)?;
                self.remove(node);
            }
            Record::Mode { node, mode } => {
                self.names.entry(node)?;
                self.names.set_mode(node, mode);
            }
            Record::Cut { .. } | Record::CutDone { .. } | Record::Pages { .. } => {
                self.apply_to_content(record);
            }
        }
        Ok(())
    }

    /// Of a node that is gone already, where it was still open, nothing is kept.
    fn apply_to_content(&mut self, record: Record) {
        match record {
            Record::Cut { node, bytes } => {
                let Some(facts) = self.facts.get_mut(&node) else { return };
                facts.origin = facts.origin.map(|(file, counts)| (file, counts.min(bytes)));
                facts.present.truncate(bytes.div_ceil(PAGE_BYTES));
                facts.floor = facts.floor.map(|floor| floor.min(bytes));
                (facts.cut, facts.cutting) = (Some(bytes), true);
            }
            Record::CutDone { node } => {
                if let Some(facts) = self.facts.get_mut(&node) {
                    facts.cutting = false;
                }
            }
            Record::Pages { node, bytes, runs } => {
                let Some(facts) = self.facts.get_mut(&node) else { return };
                facts.floor = Some(bytes);
                runs.iter().for_each(|(start, end)| facts.present.insert_range(*start, *end));
            }
            _ => {}
        }
    }

    fn remove(&mut self, node: u64) {
        self.names.remove(node);
        self.names.forget(node);
        self.facts.remove(&node);
    }

    /// Gives the files their content.
    fn attach(&mut self, source: &Arc<dyn Source>, directory: &Path) -> Result<(), MountError> {
        self.names.changed = self.dirty;
        for (number, facts) in std::mem::take(&mut self.facts) {
            let path = data_path(directory, number);
            let mut state = facts.state(source, directory, &path)?;
            if !self.dirty {
                state.changed = PageMap::default();
                state.touched = false;
            }
            let file = Arc::new(Node::file(number, path, state));
            self.names.replace(file);
        }
        Ok(())
    }

    fn remove_strays(&self, directory: &Path) -> Result<(), MountError> {
        let folder = files_in(directory);
        fs::create_dir_all(&folder).map_err(MountError::io("create", &folder))?;
        let known: HashSet<String> = self
            .names
            .walk()
            .iter()
            .filter(|(_, entry)| {
                entry.kind() == Kind::File && entry.node.read().is_ok_and(|state| state.has_data)
            })
            .map(|(_, entry)| entry.node.number.to_string())
            .collect();
        for entry in fs::read_dir(&folder).map_err(MountError::io("list", &folder))? {
            let entry = entry.map_err(MountError::io("list", &folder))?;
            if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
                let path = entry.path();
                fs::remove_file(&path).map_err(MountError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

impl Facts {
    fn state(
        self,
        source: &Arc<dyn Source>,
        directory: &Path,
        path: &Path,
    ) -> Result<State, MountError> {
        let mut state = State::default();
        if let Some((file, source_bytes)) = self.origin {
            let index = usize::try_from(file).unwrap_or(usize::MAX);
            let below =
                source.tree().files().get(index).filter(|below| below.bytes >= source_bytes);
            let bytes = below
                .ok_or_else(|| damaged(directory, "it goes back to what the version has not"))?
                .bytes;
            state.origin = Some(Origin { source: source.clone(), file: index });
            (state.bytes, state.source_bytes) = (bytes, source_bytes);
        }
        let opened = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(MountError::io("open", path))?),
        };
        let Some(data) = self.settle(opened, path)? else { return Ok(state) };
        let bytes = data.metadata().map_err(MountError::io("read the size of", path))?.len();
        (state.bytes, state.has_data) = (bytes, true);
        state.source_bytes = state.source_bytes.min(bytes);
        (state.floor, state.cut) = (self.floor, self.cut);
        state.present = self.present;
        state.touched = true;
        state.take_stock(&data).map_err(MountError::io("look for data in", path))?;
        Ok(state)
    }

    /// The data file, as long as the log says. None: what there is was never synced, and the
    /// source's file counts.
    fn settle(&self, data: Option<File>, path: &Path) -> Result<Option<File>, MountError> {
        let Some(data) = data else {
            return match (self.floor, self.cut) {
                (Some(_), _) => Err(damaged(path, "it is missing")),
                (None, Some(bytes)) => {
                    let made = File::options()
                        .read(true)
                        .write(true)
                        .create(true)
                        .truncate(false)
                        .open(path);
                    let made = made.and_then(|data| data.set_len(bytes).map(|()| data));
                    made.map(Some).map_err(MountError::io("create", path))
                }
                (None, None) => Ok(None),
            };
        };
        let bytes = data.metadata().map_err(MountError::io("read the size of", path))?.len();
        if let Some(floor) = self.floor.filter(|floor| bytes < *floor) {
            return Err(damaged(path, format!("it has {bytes} bytes, {floor} were synced")));
        }
        if self.origin.is_some() && self.floor.is_none() && self.cut.is_none() {
            return Ok(None);
        }
        if let Some(cut) = self.cut
            && (self.cutting && bytes > cut || self.floor.is_none() && bytes < cut)
        {
            data.set_len(cut).map_err(MountError::io("cut", path))?;
        }
        Ok(Some(data))
    }
}

impl State {
    /// Finds out what is in the data file: changed is what is present, and what has data behind the
    /// source's end. A page that was written and never logged is a hole again.
    fn take_stock(&mut self, data: &File) -> io::Result<()> {
        let source_end = self.source_end();
        self.changed = self.present.clone();
        let mut at = 0;
        while let Some((start, end)) = next_data(data, at, self.bytes)? {
            let (first, last) = (start / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
            if last > source_end {
                self.changed.insert_range(first.max(source_end), last);
            }
            for page in first..last.min(source_end) {
                if !self.present.has(page) {
                    let end = ((page + 1) * PAGE_BYTES).min(self.bytes);
                    zero(data, page * PAGE_BYTES, end)?;
                }
            }
            at = end;
        }
        // Where it was cut, the source's bytes do not come back.
        if let Some(origin) = &self.origin {
            let below = origin.source.tree().files()[origin.file].bytes;
            if self.source_bytes < below {
                let last = below.div_ceil(PAGE_BYTES);
                self.changed.insert_range(self.source_bytes / PAGE_BYTES, last);
            }
        }
        Ok(())
    }
}
