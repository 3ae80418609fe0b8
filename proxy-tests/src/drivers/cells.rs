//! The cells: what each driver's program does, and what may come of it.

use super::list::Driver;

/// One step of every program.
#[derive(Debug)]
pub(super) struct Cell {
    /// Its name in the programs' output.
    pub(super) name: &'static str,
    /// What may come of it.
    pub(super) allowed: &'static [&'static str],
}

const fn ok(name: &'static str) -> Cell {
    Cell { name, allowed: &["ok"] }
}

/// What is done while the branch is awake.
pub(super) const AWAKE: [Cell; 8] = [
    ok("connect"),
    ok("crud"),
    ok("retryable-write"),
    ok("bulk-write"),
    ok("batches"),
    ok("w0"),
    ok("transaction"),
    ok("change-stream"),
];

/// What is going on when the branch is suspended.
pub(super) const SUSPENDED: [Cell; 4] = [
    ok("idle-pool"),
    Cell { name: "open-cursor", allowed: &["CursorNotFound", "completes"] },
    Cell { name: "open-transaction", allowed: &["TransientTransactionError"] },
    Cell { name: "waiting-stream", allowed: &["resumes"] },
];

/// What a driver says where it does not have the feature at all.
const HAS_NONE: &str = "has none";

/// What came of one driver's program.
#[derive(Clone, Debug)]
pub struct Row {
    /// The driver.
    pub driver: &'static Driver,
    /// Its version and its language's.
    pub version: String,
    /// Names of cells and what came of them, as they were printed.
    pub cells: Vec<(String, String)>,
}

impl Row {
    /// What came of a cell.
    pub(super) fn result(&self, name: &str) -> Option<&str> {
        self.cells.iter().find(|(cell, _)| cell == name).map(|(_, result)| &**result)
    }
}

/// What is wrong with a row: cells that are missing, unknown, or not as they must be.
pub fn complaints(row: &Row) -> Vec<String> {
    let mut complaints = Vec::new();
    let wanted = || AWAKE.iter().chain(&SUSPENDED);
    for Cell { name, allowed } in wanted() {
        let lacks = row.driver.lacks.contains(name);
        match row.result(name) {
            None => complaints.push(format!("{name}: the program did not come to it")),
            Some(HAS_NONE) if lacks => {}
            Some(result) if !lacks && allowed.contains(&result) => {}
            Some(result) => complaints.push(format!("{name}: {result}")),
        }
    }
    for (found, _) in &row.cells {
        if !wanted().any(|cell| cell.name == found) {
            complaints.push(format!("{found}: is no cell"));
        }
    }
    complaints.iter().map(|text| format!("{}: {text}", row.driver.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::DRIVERS;

    fn row(key: &str, changes: &[(&str, Option<&str>)]) -> Row {
        let driver = DRIVERS.iter().find(|driver| driver.key == key).unwrap();
        let mut cells = Vec::new();
        for cell in AWAKE.iter().chain(&SUSPENDED) {
            let good = if driver.lacks.contains(&cell.name) { HAS_NONE } else { cell.allowed[0] };
            let change = changes.iter().find(|(name, _)| *name == cell.name);
            if let Some(result) = change.map_or(Some(good), |(_, result)| *result) {
                cells.push((cell.name.to_owned(), result.to_owned()));
            }
        }
        Row { driver, version: "1".to_owned(), cells }
    }

    #[test]
    fn a_cell_is_what_it_must_be() {
        type Changes<'a> = &'a [(&'a str, Option<&'a str>)];
        let rows: [(&str, Changes, &str); 9] = [
            ("go", &[], ""),
            ("java", &[], ""),
            ("go", &[("open-cursor", Some("completes"))], ""),
            ("go", &[("open-cursor", Some("ok"))], "open-cursor: ok"),
            ("go", &[("crud", None)], "crud: the program did not come to it"),
            ("go", &[("crud", Some("failed: x"))], "crud: failed: x"),
            ("go", &[("transaction", Some("has none"))], "transaction: has none"),
            ("java", &[("transaction", Some("ok"))], "transaction: ok"),
            ("go", &[("waiting-stream", Some("CursorNotFound"))], "waiting-stream: Cursor"),
        ];
        for (key, changes, expected) in rows {
            let found = complaints(&row(key, changes)).join("; ");
            assert!(found.contains(expected), "{found}");
            assert_eq!(found.is_empty(), expected.is_empty(), "{found}");
        }
        let mut other = row("go", &[]);
        other.cells.push(("new".to_owned(), "ok".to_owned()));
        assert_eq!(complaints(&other), ["Go: new: is no cell"]);
    }
}
