//! `argon project retention`: which versions and deleted branches a project keeps.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::error::CliError;
use super::human;
use super::output::{Answer, pairs, table};
use super::session::Session;
use crate::types::{IdleTimeout, Leaving, OperationResult, Project, Retention, Thinning};

/// An age that nothing reaches: as large a number as the server keeps.
const FOREVER_MS: u64 = i64::MAX as u64;

#[derive(Args, Clone, Debug)]
pub struct RetentionCommand {
    /// The project
    name: String,
    /// Keep this many of each branch's newest versions, or `all`
    #[arg(long, value_name = "N")]
    keep_last: Option<KeepLast>,
    /// Keep every state of this long: 12h, 30d or `forever`
    #[arg(long, value_name = "TIME")]
    keep_for: Option<KeepFor>,
    /// Keep deleted branches this long: 7d or `forever`
    #[arg(long, value_name = "TIME")]
    keep_deleted: Option<KeepFor>,
    /// Of the versions that were made by the clock, keep all up to this age
    #[arg(long, value_name = "TIME")]
    periodic_all: Option<KeepFor>,
    /// Of those, keep the newest of each minute up to this age
    #[arg(long, value_name = "TIME")]
    periodic_minutes: Option<KeepFor>,
    /// Of those, keep the newest of each hour up to this age, and beyond it of each day
    #[arg(long, value_name = "TIME")]
    periodic_hours: Option<KeepFor>,
    /// Change nothing; show what the rules would let go of now
    #[arg(long)]
    dry_run: bool,
}

/// A number of versions; none is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeepLast(Option<NonZeroU32>);

/// A time; none is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeepFor(Option<Duration>);

impl FromStr for KeepLast {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self(None)),
            number => {
                number.parse().map(|n| Self(Some(n))).map_err(|_| "expected 1 or more, or `all`")
            }
        }
    }
}

impl FromStr for KeepFor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse::<IdleTimeout>()) {
            ("forever", _) => Ok(Self(None)),
            // The same units, and `never` is none of them.
            (_, Ok(IdleTimeout::After { ms })) => Ok(Self(Some(Duration::from_millis(ms.get())))),
            _ => Err("expected for example 12h, 30d or forever"),
        }
    }
}

impl RetentionCommand {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let projects = session.client.projects()?;
        let project = projects.iter().find(|project| project.name == self.name);
        // Where there is none, the server says so.
        let rules = self.rules(project.map(|project| project.retention).unwrap_or_default());
        let times = [
            self.keep_for,
            self.keep_deleted,
            self.periodic_all,
            self.periodic_minutes,
            self.periodic_hours,
        ];
        let asked = self.keep_last.is_some() || times.iter().any(Option::is_some);
        match project {
            Some(project) if !asked && !self.dry_run => {
                Ok(Answer::new(&project.retention, shown(project)))
            }
            Some(_) if !self.dry_run => set(session, &self.name, &rules),
            _ => {
                let leaving = session.client.preview_retention(&self.name, &rules)?;
                Ok(Answer::new(&leaving, listed(&leaving)))
            }
        }
    }

    fn rules(&self, now: Retention) -> Retention {
        let ms = |keep: KeepFor| keep.0.map(|time| time.as_millis() as u64);
        let age = |keep: Option<KeepFor>, now| match keep {
            Some(keep) => ms(keep).unwrap_or(FOREVER_MS).min(FOREVER_MS),
            None => now,
        };
        Retention {
            keep_last: self.keep_last.map_or(now.keep_last, |keep| keep.0.map(NonZeroU32::get)),
            keep_for_ms: self.keep_for.map_or(now.keep_for_ms, ms),
            keep_deleted_ms: self.keep_deleted.map_or(now.keep_deleted_ms, ms),
            periodic: Thinning {
                all_ms: age(self.periodic_all, now.periodic.all_ms),
                minutes_ms: age(self.periodic_minutes, now.periodic.minutes_ms),
                hours_ms: age(self.periodic_hours, now.periodic.hours_ms),
            },
        }
    }
}

fn set(session: &Session, name: &str, rules: &Retention) -> Result<Answer, CliError> {
    let done = session.follow(session.client.set_retention(name, rules)?)?;
    match &done.result {
        Some(OperationResult::Project(project)) => {
            Ok(Answer::new(&project.retention, shown(project)))
        }
        _ => Err(session.no_result(&done).into()),
    }
}

fn shown(project: &Project) -> String {
    let Retention { keep_last, keep_for_ms, keep_deleted_ms, periodic } = project.retention;
    let time = |ms: Option<u64>| match ms {
        None | Some(FOREVER_MS..) => "forever".to_owned(),
        Some(0) => "0s".to_owned(),
        Some(ms) => IdleTimeout::from(Some(Duration::from_millis(ms))).to_string(),
    };
    let thinned = format!(
        "all for {}, one a minute for {}, one an hour for {}, then one a day",
        time(Some(periodic.all_ms)),
        time(Some(periodic.minutes_ms)),
        time(Some(periodic.hours_ms))
    );
    let last = keep_last.map_or_else(|| "all".to_owned(), |last| last.to_string());
    pairs(&[
        ("project", Some(project.name.clone())),
        ("keep last", Some(last)),
        ("keep for", Some(time(keep_for_ms))),
        ("keep deleted", Some(time(keep_deleted_ms))),
        ("periodic", Some(thinned)),
    ])
}

fn listed(leaving: &[Leaving]) -> String {
    let row = |one: &Leaving| match &one.version {
        Some(version) => [
            one.branch.clone(),
            version.id.clone(),
            version.created_at.clone(),
            version.cause.clone(),
            human::size(version.stored_bytes),
            version.label.clone().unwrap_or_default(),
        ],
        None => {
            let whole = format!("(deleted branch {})", one.branch_id);
            [one.branch.clone(), whole, "-".into(), "-".into(), "-".into(), String::new()]
        }
    };
    let heads = ["BRANCH", "VERSION", "CREATED", "CAUSE", "STORED", "LABEL"];
    table(heads, leaving.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_read_and_other_text_refused() {
        let days = |days: u64| Ok(KeepFor(Some(Duration::from_secs(days * 86_400))));
        for (text, expected) in [
            ("30d", days(30)),
            ("24h", days(1)),
            ("forever", Ok(KeepFor(None))),
            ("never", Err(())),
            ("0d", Err(())),
            ("30", Err(())),
        ] {
            assert_eq!(text.parse::<KeepFor>().map_err(drop), expected, "{text}");
        }
        for (text, expected) in [
            ("1", Ok(KeepLast(NonZeroU32::new(1)))),
            ("all", Ok(KeepLast(None))),
            ("0", Err(())),
            ("-1", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(text.parse::<KeepLast>().map_err(drop), expected, "{text}");
        }
    }
}
