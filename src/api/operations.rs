//! Long work: it runs whether or not its client stays, and can be followed.
//!
//! Operations are kept in memory, as what they did is in the catalog: a restart forgets them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon_admin::types::{Operation, OperationKind, OperationResult, OperationStatus};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::error::ApiError;
use crate::base::clock::Clock;
use crate::base::ids::OperationId;

/// How many ended operations are remembered.
const ENDED_MAX: usize = 1000;

/// How many operations may run at once. Most wait for a branch, which costs little, but each may
/// start a process.
const RUNNING_MAX: usize = 256;

/// How long one request may wait for an operation to end.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

/// What work comes to.
pub(super) type Outcome = Result<Option<OperationResult>, ApiError>;

/// What a piece of work is, for those who follow it.
pub(super) struct Subject {
    pub(super) kind: OperationKind,
    /// `PROJECT`, `PROJECT/BRANCH`, a version's id or `base`.
    pub(super) name: String,
    /// Where the work has got to, asked whenever somebody looks.
    pub(super) progress: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// The operations of one server. Clones are the same register.
#[derive(Clone)]
pub(super) struct Operations {
    clock: Arc<dyn Clock>,
    entries: Arc<Mutex<BTreeMap<OperationId, Arc<Entry>>>>,
    tasks: TaskTracker,
}

struct Entry {
    state: watch::Sender<Operation>,
    progress: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Operations {
    /// None yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, entries: Arc::default(), tasks: TaskTracker::new() }
    }

    /// Begins work on a task of its own.
    pub(super) fn start(
        &self,
        subject: Subject,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Result<Operation, ApiError> {
        let now = self.clock.now();
        let id = OperationId::generate(now);
        let operation = Operation {
            id: id.to_string(),
            kind: subject.kind,
            subject: subject.name,
            status: OperationStatus::Running,
            progress: None,
            error: None,
            result: None,
            started_at: now.to_string(),
            ended_at: None,
        };
        let state = watch::Sender::new(operation.clone());
        let entry = Arc::new(Entry { state, progress: subject.progress });
        let mut entries = self.lock();
        let running = entries.values().filter(|entry| entry.is_running()).count();
        if running >= RUNNING_MAX {
            return Err(ApiError::TooManyOperations(running));
        }
        forget_the_oldest(&mut entries, running);
        entries.insert(id, Arc::clone(&entry));
        drop(entries);
        let this = self.clone();
        self.tasks.spawn(async move { this.run(&entry, work).await });
        Ok(operation)
    }

    async fn run(&self, entry: &Entry, work: impl Future<Output = Outcome> + Send + 'static) {
        // On a task inside the task, so that a panic ends the operation and not its record.
        let outcome = tokio::spawn(work).await.unwrap_or(Err(ApiError::Panicked));
        let ended_at = Some(self.clock.now().to_string());
        entry.state.send_modify(|operation| {
            operation.ended_at = ended_at;
            match outcome {
                Ok(result) => {
                    operation.status = OperationStatus::Succeeded;
                    operation.result = result;
                }
                Err(error) => {
                    operation.status = OperationStatus::Failed;
                    operation.error = Some(error.problem());
                }
            }
        });
        let operation = entry.state.borrow();
        let (kind, subject) = (operation.kind, &operation.subject);
        match &operation.error {
            None => tracing::info!(id = operation.id, "{kind} {subject}: done"),
            Some(problem) => {
                tracing::warn!(
                    id = operation.id,
                    code = problem.code,
                    "{kind} {subject}: {}",
                    problem.detail
                );
            }
        }
    }

    /// Runs something that is no operation, but that the server's end waits for too.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Every operation that is remembered, the newest first.
    pub(super) fn list(&self) -> Vec<Operation> {
        let entries: Vec<_> = self.lock().values().rev().cloned().collect();
        entries.iter().map(|entry| entry.look()).collect()
    }

    /// One operation, once it has ended or `wait` is over.
    pub(super) async fn get(&self, id: &str, wait: Duration) -> Result<Operation, ApiError> {
        let unknown = || ApiError::UnknownOperation(id.chars().take(64).collect());
        let key: OperationId = id.parse().map_err(|_| unknown())?;
        let entry = self.lock().get(&key).cloned().ok_or_else(unknown)?;
        let mut changes = entry.state.subscribe();
        tokio::select! {
            _ = changes.wait_for(|operation| operation.status != OperationStatus::Running) => {}
            () = tokio::time::sleep(wait.min(WAIT_MAX)) => {}
        }
        Ok(entry.look())
    }

    /// Waits until all work has ended; what starts meanwhile is waited for too.
    pub(super) async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OperationId, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_running(&self) -> bool {
        self.state.borrow().status == OperationStatus::Running
    }

    fn look(&self) -> Operation {
        let mut operation = self.state.borrow().clone();
        if operation.status == OperationStatus::Running {
            operation.progress = (self.progress)();
        }
        operation
    }
}

/// Makes room for one more where as many ended operations are remembered as may be.
fn forget_the_oldest(entries: &mut BTreeMap<OperationId, Arc<Entry>>, running: usize) {
    let excess = (entries.len() - running + 1).saturating_sub(ENDED_MAX);
    let ended = entries.iter().filter(|(_, entry)| !entry.is_running()).map(|(id, _)| *id);
    for id in ended.take(excess).collect::<Vec<_>>() {
        entries.remove(&id);
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").field("known", &self.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::base::clock::SystemClock;

    const NO_WAIT: Duration = Duration::ZERO;

    /// Waited for what cannot come.
    const A_MOMENT: Duration = Duration::from_millis(20);

    fn operations() -> Operations {
        Operations::new(Arc::new(SystemClock::default()))
    }

    fn subject() -> Subject {
        Subject {
            kind: OperationKind::SuspendBranch,
            name: "shop/dev".into(),
            progress: Box::new(|| Some("suspending".into())),
        }
    }

    /// Work that ends when it is told to.
    fn held(operations: &Operations) -> (Operation, oneshot::Sender<Outcome>) {
        let (end, ended) = oneshot::channel();
        let work = async { ended.await.unwrap() };
        (operations.start(subject(), work).unwrap(), end)
    }

    #[tokio::test]
    async fn work_is_followed_from_start_to_end() {
        for (outcome, status) in [
            (Ok(None), OperationStatus::Succeeded),
            (Err(ApiError::Panicked), OperationStatus::Failed),
        ] {
            let operations = operations();
            let (begun, end) = held(&operations);
            assert_eq!((begun.status, begun.ended_at), (OperationStatus::Running, None));
            let looked = operations.get(&begun.id, A_MOMENT).await.unwrap();
            assert_eq!(looked.status, OperationStatus::Running, "the wait was over first");
            assert_eq!(looked.progress.as_deref(), Some("suspending"));
            assert_eq!(operations.list(), [looked]);

            end.send(outcome).unwrap();
            let ended = operations.get(&begun.id, WAIT_MAX).await.unwrap();
            assert_eq!(ended.status, status);
            assert!(ended.ended_at.is_some() && ended.progress.is_none());
            assert_eq!(ended.error.is_some(), status == OperationStatus::Failed);
            assert_eq!(operations.get(&begun.id, NO_WAIT).await.unwrap(), ended);
        }
    }

    #[tokio::test]
    async fn work_that_panics_is_a_failed_operation() {
        let operations = operations();
        let begun = operations.start(subject(), async { panic!("on purpose") }).unwrap();
        let ended = operations.get(&begun.id, WAIT_MAX).await.unwrap();
        assert_eq!(ended.error.unwrap().code, "internal");
    }

    #[tokio::test]
    async fn unknown_ids_are_errors() {
        let operations = operations();
        for id in ["", "x", "01arz3ndektsv4rrffq69g5fav"] {
            let found = operations.get(id, WAIT_MAX).await;
            assert!(matches!(found, Err(ApiError::UnknownOperation(told)) if told == id));
        }
    }

    #[tokio::test]
    async fn only_so_many_run_at_once() {
        let operations = operations();
        let mut held_up: Vec<_> = (0..RUNNING_MAX).map(|_| held(&operations)).collect();
        let refused = operations.start(subject(), async { Ok(None) });
        assert!(matches!(refused, Err(ApiError::TooManyOperations(RUNNING_MAX))));
        let (first, end) = held_up.swap_remove(0);
        end.send(Ok(None)).unwrap();
        operations.get(&first.id, WAIT_MAX).await.unwrap();
        operations.start(subject(), async { Ok(None) }).unwrap();
    }

    #[tokio::test]
    async fn the_oldest_ended_ones_are_forgotten_and_running_ones_never() {
        let operations = operations();
        let (running, end) = held(&operations);
        let mut ids = Vec::new();
        for _ in 0..ENDED_MAX + 3 {
            let begun = operations.start(subject(), async { Ok(None) }).unwrap();
            operations.get(&begun.id, WAIT_MAX).await.unwrap();
            ids.push(begun.id);
        }
        assert_eq!(operations.list().len(), ENDED_MAX + 1);
        for (id, known) in [(&running.id, true), (&ids[2], false), (&ids[3], true)] {
            assert_eq!(operations.get(id, NO_WAIT).await.is_ok(), known, "{id}");
        }
        end.send(Ok(None)).unwrap();
    }

    #[tokio::test]
    async fn draining_waits_for_the_work() {
        let operations = operations();
        let (_, end) = held(&operations);
        let drained = tokio::time::timeout(A_MOMENT, operations.drain()).await;
        assert!(drained.is_err(), "work is going on");
        end.send(Ok(None)).unwrap();
        operations.drain().await;
        assert_eq!(operations.list()[0].status, OperationStatus::Succeeded);
    }
}
