//! `argon gc` and `argon scrub`

use clap::Args;

use super::error::CliError;
use super::human;
use super::output::{Answer, pairs};
use super::session::Session;
use crate::types::{CollectGarbage, Collected, Damage, OperationResult, Scrubbed, Tally};

#[derive(Args, Clone, Debug)]
pub struct Gc {
    /// Change nothing; tell what a run would do now
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let begun = session.client.collect_garbage(CollectGarbage { dry_run: self.dry_run })?;
        let done = session.watch(begun)?;
        match &done.result {
            Some(OperationResult::Collected(collected)) => {
                Ok(Answer::new(collected, collection(collected)))
            }
            _ => Err(session.no_result(&done).into()),
        }
    }
}

/// A store in which something is wrong is a failure, after it was told.
pub(super) fn scrub(session: &Session) -> Result<Answer, CliError> {
    let begun = session.client.scrub()?;
    let done = session.watch(begun)?;
    match &done.result {
        Some(OperationResult::Scrubbed(scrubbed)) => {
            let answer = Answer::new(scrubbed, verdict(scrubbed));
            Ok(if scrubbed.damages.is_empty() { answer } else { answer.into_failure() })
        }
        _ => Err(session.no_result(&done).into()),
    }
}

fn collection(collected: &Collected) -> String {
    let (deleted, rewritten) = match collected.dry_run {
        true => ("would delete", "would rewrite"),
        false => ("deleted", "rewrote"),
    };
    let later = collected.next_at.as_deref().map(|at| format!("; the first may go at {at}"));
    let condemned = format!("{}{}", objects(&collected.condemned), later.unwrap_or_default());
    let small = match collected.rewritten_as_bytes {
        0 => String::new(),
        bytes => format!(" as {}", human::size(bytes)),
    };
    pairs(&[
        (deleted, Some(objects(&collected.deleted))),
        ("condemned", Some(condemned)),
        (rewritten, Some(format!("{}{small}", objects(&collected.rewritten)))),
        ("kept", Some(objects(&collected.kept))),
    ])
}

/// `2 versions, 1 pack, 1.5 MiB`, or `nothing`.
fn objects(tally: &Tally) -> String {
    let counts = [
        (tally.versions, "version"),
        (tally.packs, "pack"),
        (tally.pages, "object of index pages"),
    ];
    let told = counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| {
        let (first, rest) = name.split_at(name.find(' ').unwrap_or(name.len()));
        format!("{count} {first}{}{rest}", if *count == 1 { "" } else { "s" })
    });
    let mut told: Vec<_> = told.collect();
    if told.is_empty() {
        return "nothing".to_owned();
    }
    told.push(human::size(tally.bytes));
    told.join(", ")
}

fn verdict(scrubbed: &Scrubbed) -> String {
    let Scrubbed { versions, objects, frames, damages } = scrubbed;
    let read = format!("{versions} versions, {objects} objects, {frames} blocks and index pages");
    if damages.is_empty() {
        return format!("sound: {read}");
    }
    let damaged: String = damages.iter().map(damage).collect();
    let count = damages.len();
    format!("{damaged}damaged: {count} of what was read: {read}")
}

fn damage(damage: &Damage) -> String {
    let mut text = format!("{}: {}\n", damage.object, damage.problem);
    for hurt in &damage.hurts {
        let names = match &hurt.names[..] {
            [] => "no branch that is known".to_owned(),
            names => names.join(", "),
        };
        let files = match &hurt.files[..] {
            [] => String::new(),
            files => format!(", files {}", files.join(" ")),
        };
        text.push_str(&format!("  hurts version {} of {names}{files}\n", hurt.version));
    }
    if damage.hurts.is_empty() {
        text.push_str("  hurts no version\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Hurt;

    #[test]
    fn what_went_is_counted_in_words() {
        let tally = |versions, packs, pages| Tally { versions, packs, pages, bytes: 1536 };
        for (tally, text) in [
            (Tally::default(), "nothing"),
            (tally(1, 0, 0), "1 version, 1.5 KiB"),
            (tally(2, 1, 3), "2 versions, 1 pack, 3 objects of index pages, 1.5 KiB"),
        ] {
            assert_eq!(objects(&tally), text);
        }
    }

    #[test]
    fn a_damage_is_told_with_those_it_hurts() {
        let hurt = Hurt {
            version: "v1".into(),
            names: vec!["shop/dev".into(), "shop/old (deleted)".into()],
            files: vec!["a.wt".into(), "b.wt".into()],
        };
        let damage = |hurts| Damage { object: "packs/x".into(), problem: "bad".into(), hurts };
        let scrubbed = |damages| Scrubbed { versions: 1, objects: 2, frames: 3, damages };
        let read = "1 versions, 2 objects, 3 blocks and index pages";
        assert_eq!(verdict(&scrubbed(vec![])), format!("sound: {read}"));
        assert_eq!(
            verdict(&scrubbed(vec![damage(vec![hurt]), damage(vec![])])),
            format!(
                "packs/x: bad\n  hurts version v1 of shop/dev, shop/old (deleted), files a.wt b.wt\n\
                 packs/x: bad\n  hurts no version\ndamaged: 2 of what was read: {read}"
            )
        );
    }
}
