//! The shape of the code: which room may use which, who may use which crate, how long files are.

use std::fs;
use std::path::{Path, PathBuf};

use proxy_tests::machine::repository;

/// The rooms of `src/`, from the top down; each may use only those after it. The design's list.
const ROOMS: [&str; 13] = [
    "app", "proxy", "api", "branch", "pool", "archive", "volume", "mount", "compute", "store",
    "catalog", "wire", "base",
];

/// Crates that only one room may know.
const ONLY_IN: [(&str, &str); 4] =
    [("aws_sdk_s3", "store"), ("bollard", "compute"), ("rusqlite", "catalog"), ("fuser", "mount")];

const LINES_MAX: usize = 600;

/// One source file, by its path below `src/`.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
}

impl Source<'_> {
    /// The room that the file belongs to; `None` for the crate's own files.
    fn room(&self) -> Option<&str> {
        let (room, _) = self.path.split_once('/').unwrap_or((self.path, ""));
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (!["lib", "main"].contains(&room)).then_some(room)
    }

    /// How many `super` lead from the file's module to the crate's root.
    fn depth(&self) -> usize {
        self.path.split('/').filter(|part| *part != "mod.rs").count()
    }

    /// Rooms that the code names, as `crate::room`, in a `use crate::{…}`, or as `argon::room`.
    fn uses(&self) -> Vec<String> {
        let code = code(self.text);
        let mut found = Vec::new();
        for root in ["crate::", "argon::"] {
            for (at, _) in code.match_indices(root) {
                let before = code[..at].chars().next_back();
                if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    found.extend(first_names(&code[at + root.len()..]));
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// A `super` that leads to the crate's root is an arrow that [`Self::uses`] does not see.
    fn leaves_by_super(&self) -> bool {
        let (main, tests) = self.text.split_once("mod tests {").unwrap_or((self.text, ""));
        code(main).contains(&"super::".repeat(self.depth()))
            || code(tests).contains(&"super::".repeat(self.depth() + 1))
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let rank = |room: &str| ROOMS.iter().position(|known| *known == room);
        if let Some(room) = self.room() {
            match rank(room) {
                None => complaints.push(format!("`{room}` is no room of the design")),
                Some(own) => {
                    complaints.extend(self.uses().iter().filter_map(|used| match rank(used) {
                        None => Some(format!("`crate::{used}` is no room")),
                        Some(other) if other < own => {
                            Some(format!("`{room}` uses `{used}`, which is above it"))
                        }
                        Some(_) => None,
                    }))
                }
            }
            if self.leaves_by_super() {
                complaints.push("`super` leads out of the room: write `crate::`".into());
            }
        }
        for (name, room) in ONLY_IN {
            let code = code(self.text);
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| word == name) && self.room() != Some(room) {
                complaints.push(format!("`{name}` is used outside `{room}`"));
            }
        }
        complaints.iter().map(|text| format!("src/{}: {text}", self.path)).collect()
    }
}

/// The text without comments, on one line.
fn code(text: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().trim().to_owned();
    text.lines().map(code).collect::<Vec<_>>().join(" ")
}

/// The names that a path goes on with: one, or those of a group, its first level.
fn first_names(rest: &str) -> Vec<String> {
    let legal = |c: &char| c.is_alphanumeric() || *c == '_';
    let name = |text: &str| text.trim_start().chars().take_while(legal).collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is part of the repository") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn rooms_use_only_what_is_below_them() {
    let root = repository().join("src");
    let mut complaints = Vec::new();
    let files = rust_files(&root);
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        complaints.extend(Source { path, text: &text }.complaints());
    }
    assert!(files.len() > ROOMS.len(), "the search found only {files:?}");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn files_say_what_they_are_and_are_not_too_long() {
    let mut complaints = Vec::new();
    for folder in ["src", "admin/src", "proxy-tests/src", "proxy-tests/tests"] {
        for file in rust_files(&repository().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let lines = text.lines().count();
            if lines > LINES_MAX {
                complaints.push(format!("{}: {lines} lines, at most {LINES_MAX}", file.display()));
            }
            if !text.starts_with("//!") {
                complaints.push(format!("{}: does not begin with `//!`", file.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The check itself can fail: what it must see, and what it must not take for an arrow.
#[test]
fn an_arrow_up_is_seen_however_it_is_written() {
    let rows = [
        ("store/mod.rs", "use crate::base::ids::PackId;", ""),
        ("store/mod.rs", "use crate::store::Key;", ""),
        ("store/mod.rs", "use crate::volume::Version;", "`store` uses `volume`"),
        ("store/local.rs", "fn f() -> crate::app::X {}", "`store` uses `app`"),
        ("store/mod.rs", "use crate::{base::ids, branch::{A, B}};", "`store` uses `branch`"),
        ("store/mod.rs", "use crate::{\n    base::{ids, name},\n    proxy,\n};", "uses `proxy`"),
        ("store/mod.rs", "/// See crate::branch::Branches.\n// use crate::app;", ""),
        ("store/mod.rs", "use super::volume;", "leads out"),
        ("store/local.rs", "use super::Key;", ""),
        ("store/local.rs", "use super::super::volume;", "leads out"),
        ("store/local.rs", "\nmod tests { use super::super::Key; }", ""),
        ("store.rs", "use super::volume;", "leads out"),
        ("store/mod.rs", "use rusqlite::Connection;", "`rusqlite` is used outside `catalog`"),
        ("catalog/mod.rs", "use rusqlite::Connection;", ""),
        ("catalog/mod.rs", "fn f(s: aws_sdk_s3::Client) {}", "`aws_sdk_s3` is used outside"),
        ("store/mod.rs", "use crate::helpers::x;", "`crate::helpers` is no room"),
        ("helpers/mod.rs", "", "no room of the design"),
        ("main.rs", "use argon::app;", ""),
        ("base/mod.rs", "fn f() -> argon::app::X {}", "`base` uses `app`"),
        ("base/mod.rs", "fn f() -> another_crate::app::X {}", ""),
    ];
    for (path, text, expected) in rows {
        let found = Source { path, text }.complaints().join("\n");
        assert_eq!(found.is_empty(), expected.is_empty(), "{text}: {found}");
        assert!(found.contains(expected), "{text}: {found}");
    }
}
