//! Whether a store keeps its promises, tried for real before the first branch relies on them.
//!
//! A server may take a condition and ignore it, or look at it and at the object in two steps, so
//! that of several writers more than one wins. Both look well until two servers share a bucket.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::Barrier;

use super::{Condition, ETag, Key, Object, Store, StoreError};
use crate::base::clock::Timestamp;
use crate::base::ids::BranchId;
use crate::base::parallel::parallel;

/// Writers of a race.
const WRITERS: usize = 8;
/// Races, half of them for an absent object. A server that lets several win does so in most of
/// them.
const RACES: usize = 12;

/// How a store treats the conditions of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conditions {
    /// As it must: of many writers exactly one wins.
    Kept,
    /// Not so: two servers could both move a branch.
    Broken(Breach),
}

/// What a store does with a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It wrote although the object was there.
    IgnoresAbsent,
    /// It wrote although the object was another.
    IgnoresMatch,
    /// It refused although the object was the one.
    RefusesMatch,
    /// So many of [`WRITERS`] won.
    ManyWinners(usize),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IgnoresAbsent => f.write_str("a write with If-None-Match replaced an object"),
            Self::IgnoresMatch => {
                f.write_str("a write with If-Match replaced an object of another ETag")
            }
            Self::RefusesMatch => {
                f.write_str("a write with If-Match was refused although the ETag was right")
            }
            Self::ManyWinners(winners) => {
                write!(f, "{winners} of {WRITERS} writers with one condition succeeded at once")
            }
        }
    }
}

/// The store cannot be used.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// One of the steps failed.
    #[error("{step}")]
    Step {
        /// What was tried, in words.
        step: &'static str,
        /// The cause.
        source: StoreError,
    },
    /// What was read is not what was written.
    #[error("the store gave back something else than was written")]
    Changed,
}

impl ProbeError {
    /// What an operator can do, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Step { source, .. } => source.hint(),
            Self::Changed => None,
        }
    }
}

/// Lists, writes, reads, deletes, and races for conditions, under a scratch key. Leaves nothing
/// behind, also when a step fails, as far as the store lets it.
pub async fn probe(store: &Arc<dyn Store>, now: Timestamp) -> Result<Conditions, ProbeError> {
    store.list("", None).await.map_err(step("list the store"))?;
    let scratch = format!("argon/probe/{}", BranchId::generate(now));
    let probed = try_all(store, &scratch).await;
    let swept = sweep(store, &scratch).await;
    let conditions = probed?;
    swept?;
    Ok(conditions)
}

fn step(step: &'static str) -> impl FnOnce(StoreError) -> ProbeError {
    move |source| ProbeError::Step { step, source }
}

fn key(scratch: &str, name: &str) -> Key {
    format!("{scratch}/{name}").parse().expect("made of an id and a word")
}

async fn sweep(store: &Arc<dyn Store>, scratch: &str) -> Result<(), ProbeError> {
    let left = store.list(scratch, None).await.map_err(step("list the store"))?;
    for entry in left {
        store.delete(&entry.key).await.map_err(step("delete from the store"))?;
    }
    Ok(())
}

async fn try_all(store: &Arc<dyn Store>, scratch: &str) -> Result<Conditions, ProbeError> {
    let name = key(scratch, "object");
    let write = |text: &'static str, condition| store.write(&name, text.into(), condition);
    let first = write("first", Condition::Absent).await.map_err(step("write to the store"))?;
    let Object { bytes, .. } = store.read(&name).await.map_err(step("read from the store"))?;
    let part = store.read_range(&name, 1..3).await.map_err(step("read from the store"))?;
    if bytes != "first" || part != "ir" {
        return Err(ProbeError::Changed);
    }
    if won(write("again", Condition::Absent).await)?.is_some() {
        return Ok(Conditions::Broken(Breach::IgnoresAbsent));
    }
    let Some(_) = won(write("second", Condition::Matches(first.clone())).await)? else {
        return Ok(Conditions::Broken(Breach::RefusesMatch));
    };
    if won(write("third", Condition::Matches(first)).await)?.is_some() {
        return Ok(Conditions::Broken(Breach::IgnoresMatch));
    }
    for race in 0..RACES {
        let name = key(scratch, &format!("race-{race}"));
        let condition = match race % 2 {
            0 => Condition::Absent,
            _ => {
                let written = store.write(&name, "start".into(), Condition::Absent).await;
                Condition::Matches(written.map_err(step("write to the store"))?)
            }
        };
        let winners = winners(store, &name, &condition).await?;
        if winners != 1 {
            return Ok(Conditions::Broken(Breach::ManyWinners(winners)));
        }
        store.delete(&name).await.map_err(step("delete from the store"))?;
    }
    Ok(Conditions::Kept)
}

/// A conflict is an answer, anything else an error.
fn won(written: Result<ETag, StoreError>) -> Result<Option<ETag>, ProbeError> {
    match written {
        Ok(tag) => Ok(Some(tag)),
        Err(StoreError::Conflict { .. }) => Ok(None),
        Err(source) => Err(ProbeError::Step { step: "write to the store", source }),
    }
}

async fn winners(
    store: &Arc<dyn Store>,
    name: &Key,
    condition: &Condition,
) -> Result<usize, ProbeError> {
    let start = Arc::new(Barrier::new(WRITERS));
    let writers = (0..WRITERS).map(|number| {
        let (store, name) = (store.clone(), name.clone());
        let (condition, start) = (condition.clone(), start.clone());
        async move {
            start.wait().await;
            let content = Bytes::from(format!("writer {number}"));
            won(store.write(&name, content, condition).await)
        }
    });
    let written = parallel(WRITERS, writers.collect::<Vec<_>>()).await?;
    Ok(written.iter().flatten().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LocalStore;
    use crate::store::careless::Careless;
    use crate::store::faults::{Call, Fault, Faults};

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);

    #[tokio::test(flavor = "multi_thread")]
    async fn a_good_store_passes_and_is_left_empty() {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(LocalStore::open(directory.path()).unwrap());
        assert_eq!(probe(&store, NOW).await.unwrap(), Conditions::Kept);
        assert_eq!(store.list("", None).await.unwrap(), []);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_carelessness_is_recognised() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for (store, breach) in [
            (Careless::ignoring(root), Breach::IgnoresAbsent),
            (Careless::ignoring_match(root), Breach::IgnoresMatch),
            (Careless::refusing_match(root), Breach::RefusesMatch),
        ] {
            let store: Arc<dyn Store> = store;
            assert_eq!(probe(&store, NOW).await.unwrap(), Conditions::Broken(breach));
            assert_eq!(store.list("", None).await.unwrap(), []);
        }
        let store: Arc<dyn Store> = Careless::looking_then_writing(root);
        let found = probe(&store, NOW).await.unwrap();
        let many = |winners| (2..=WRITERS).contains(&winners);
        assert!(
            matches!(found, Conditions::Broken(Breach::ManyWinners(n)) if many(n)),
            "{found:?}"
        );
        assert_eq!(store.list("", None).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let inner = Arc::new(LocalStore::open(directory.path()).unwrap());
        for (call, words) in [
            (Call::List, "list the store"),
            (Call::Write, "write to the store"),
            (Call::Read, "read from the store"),
            (Call::Delete, "delete from the store"),
        ] {
            let faults = Faults::new(inner.clone(), 1);
            faults.once(call, 1, Fault::Denied);
            let store: Arc<dyn Store> = faults;
            let error = probe(&store, NOW).await.unwrap_err();
            assert_eq!(error.to_string(), words);
            assert!(error.hint().is_some_and(|hint| hint.contains("s3:PutObject")), "{error}");
        }
        let faults = Faults::new(inner.clone(), 1);
        faults.once(Call::Read, 1, Fault::Short);
        let store: Arc<dyn Store> = faults;
        assert!(matches!(probe(&store, NOW).await, Err(ProbeError::Changed)));
        assert_eq!(inner.list("", None).await.unwrap(), []);
    }
}
