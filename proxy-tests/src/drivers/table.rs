//! `docs/drivers.md`, written from what was measured.

use super::cells::{AWAKE, Cell, Row, SUSPENDED};

const HEAD: &str = "\
# Drivers that Argon is tested with

Written by the tests (`ARGON_WRITE_DOCS=1 cargo test -p proxy-tests --test drivers`), which also fail
where a cell is another than below. Each driver is unchanged, and runs a small program of its own in
[proxy-tests/drivers](../proxy-tests/drivers/README.md) against a real server.

## Versions

Of the last run that wrote this page; the tests take the versions that a machine has.

";

const AWAKE_HEAD: &str = "
## On a branch that is awake

`retryable-write`: the driver sends its writes so that they can be retried. `batches`: a cursor of eleven
batches. `w0`: a write without acknowledgement arrives. `has none`: this driver has no such feature.

";

const SUSPENDED_HEAD: &str = "
## When the branch is suspended

`idle-pool`: with retries switched off, five pooled connections, and no error. `open-cursor`: the driver says
that the cursor is gone, or reads on. `open-transaction`: an error with the label after which applications run
a transaction again, and that succeeds. `waiting-stream`: the change stream goes on, each event once.

";

const TAIL: &str = "
PHP's extension leaves resuming a change stream to its library, which Debian does not package; the program does
here what that library does. C, PHP and mongosh run on one thread: their stream is open and asked again
afterwards, while the others' is suspended in the middle of its wait.

Not tested: Prisma, whose engines' package fetches binaries in a script of its own after npm has installed it,
and no such script is run here; Perl.
";

/// The whole page.
pub fn document(rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("| driver | version |\n| --- | --- |\n");
    for row in rows {
        text.push_str(&format!("| {} | {} |\n", row.driver.name, row.version));
    }
    for (head, cells) in [(AWAKE_HEAD, &AWAKE[..]), (SUSPENDED_HEAD, &SUSPENDED)] {
        let names: Vec<_> = cells.iter().map(|cell| cell.name).collect();
        text.push_str(head);
        text.push_str(&format!("| driver | {} |\n", names.join(" | ")));
        text.push_str(&format!("| --- {}|\n", "| --- ".repeat(cells.len())));
        for row in rows {
            text.push_str(&line(row, cells));
            text.push('\n');
        }
    }
    text + TAIL
}

/// The lines of the page that say what came of a driver's cells. They hold no versions.
pub fn lines_of(row: &Row) -> [String; 2] {
    [line(row, &AWAKE), line(row, &SUSPENDED)]
}

fn line(row: &Row, cells: &[Cell]) -> String {
    let results: Vec<_> =
        cells.iter().map(|cell| row.result(cell.name).unwrap_or_default()).collect();
    format!("| {} | {} |", row.driver.name, results.join(" | "))
}
