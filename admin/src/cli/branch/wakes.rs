//! `argon branch wake-trace`: where the time of the last wakes went.

use super::Named;
use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::{Answer, pairs};
use crate::cli::session::Session;
use crate::types::WakeTrace;

pub(super) fn trace(session: &Session, named: &Named) -> Result<Answer, CliError> {
    let project = session.project(&named.project)?;
    let wakes = session.client.wakes(&project, &named.name)?;
    let texts: Vec<_> = wakes.iter().map(shown).collect();
    let text = match texts.is_empty() {
        true => "it has not been woken since the server started\n".to_owned(),
        false => texts.join("\n"),
    };
    Ok(Answer::new(&wakes, text))
}

/// A headline, and a line for each step.
fn shown(wake: &WakeTrace) -> String {
    let total: u64 = wake.steps.iter().map(|step| step.took_us).sum();
    let why = wake.cold_because.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let (by, when) = (wake.by.as_str(), human::ago(&wake.at));
    let head = format!("life {}, {by}{why}, {when}: {}\n", wake.epoch, ms(total));
    let steps = wake.steps.iter().map(|step| (step.name.as_str(), Some(ms(step.took_us))));
    let meanwhile = |took| Some(format!("{}, meanwhile", ms(took)));
    let beside = wake.beside.iter().map(|step| (step.name.as_str(), meanwhile(step.took_us)));
    let lines: Vec<_> = steps.chain(beside).collect();
    head + &pairs(&lines).lines().map(|line| format!("  {line}\n")).collect::<String>()
}

/// `12.34 ms`
fn ms(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{WakeBy, WakeStep};

    #[test]
    fn a_wake_is_told_step_by_step() {
        let step = |name: &str, took_us| WakeStep { name: name.to_owned(), took_us };
        let wake = WakeTrace {
            at: "2026-01-31T12:00:00.000Z".into(),
            epoch: 3,
            by: WakeBy::Cold,
            cold_because: Some("none was parked just then".into()),
            steps: vec![step("claim", 12_345), step("mongod_start", 600_009)],
            beside: vec![step("other", 7_000)],
        };
        let text = shown(&wake);
        assert!(text.starts_with("life 3, cold (none was parked just then), "), "{text}");
        assert!(text.contains(": 612.35 ms\n  claim         12.34 ms\n"), "{text}");
        let end = "\n  mongod_start  600.00 ms\n  other         7.00 ms, meanwhile\n";
        assert!(text.ends_with(end), "{text}");
    }
}
