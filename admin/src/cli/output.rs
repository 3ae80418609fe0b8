//! What goes to stdout.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use super::error::CliError;

/// How to show data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Human,
    Json,
}

/// What a subcommand has to say, in both forms.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// For `--json`; `None` where bytes went to stdout already.
    json: Option<Value>,
    /// For people, with its last line's end; may be empty.
    text: String,
    /// Whether what it says is that something is wrong.
    failure: bool,
}

impl Answer {
    /// `data` as it is for machines, `text` for people.
    pub(super) fn new(data: &impl Serialize, text: impl Into<String>) -> Self {
        let json = serde_json::to_value(data).expect("the API's types are always JSON");
        let mut text = text.into();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Self { json: Some(json), text, failure: false }
    }

    /// Nothing: stdout was written to while the work was done.
    pub(super) fn written() -> Self {
        Self { json: None, text: String::new(), failure: false }
    }

    /// The same, and the command fails with it.
    pub(super) fn into_failure(self) -> Self {
        Self { failure: true, ..self }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        if self.failure { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    pub(super) fn print(&self, format: Format) -> Result<(), CliError> {
        let text = self.text(format);
        if format == Format::Human && self.is_empty_list() && self.text.is_empty() {
            // A note, so stderr, and where that is closed nobody misses it.
            let _ = writeln!(io::stderr(), "nothing to list");
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::Stdout)
    }

    fn is_empty_list(&self) -> bool {
        self.json.as_ref().and_then(Value::as_array).is_some_and(Vec::is_empty)
    }

    pub(super) fn text(&self, format: Format) -> String {
        match (format, &self.json) {
            (Format::Human, _) => self.text.clone(),
            (Format::Json, Some(json)) => format!("{json:#}\n"),
            (Format::Json, None) => String::new(),
        }
    }
}

/// Columns of texts, as wide as they need to be; nothing where there are no rows.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows);
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    lines.iter().map(|line| aligned(line, &widths)).collect()
}

/// Names and values, one pair a line; pairs without a value are left out.
pub(super) fn pairs(pairs: &[(&str, Option<String>)]) -> String {
    let shown = pairs.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let width = shown.clone().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    shown.map(|(name, value)| aligned(&[name, value], &[width, 0])).collect()
}

fn aligned(cells: &[impl AsRef<str>], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(&format!("{:<width$}  ", cell.as_ref()));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_nothing_at_the_line_ends() {
        let rows = vec![["a".into(), "1".into()], ["größer".into(), String::new()]];
        assert_eq!(table(["NAME", "N"], rows), "NAME    N\na       1\ngrößer\n");
        assert_eq!(table(["NAME"], vec![]), "");
    }

    #[test]
    fn pairs_without_a_value_are_left_out() {
        let text =
            pairs(&[("name", Some("dev".into())), ("origin", None), ("x", Some("1".into()))]);
        assert_eq!(text, "name  dev\nx     1\n");
    }

    #[test]
    fn json_is_the_data_and_text_ends_its_line() {
        let answer = Answer::new(&[1, 2], "two");
        assert_eq!(answer.text(Format::Human), "two\n");
        assert_eq!(answer.text(Format::Json), "[\n  1,\n  2\n]\n");
        assert_eq!(Answer::new(&[0; 0], "").text(Format::Human), "");
        assert_eq!(Answer::written().text(Format::Json), "");
    }
}
