//! Many pieces of work, some at a time.

use std::future::Future;
use std::panic::resume_unwind;

use tokio::task::JoinSet;

/// Runs the futures, at most `limit` at a time, and gives their results in no order. The first
/// error ends it: the others are dropped. So are all when this is dropped.
pub async fn parallel<F, T, E>(limit: usize, work: impl IntoIterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let (mut waiting, mut running, mut results) = (work.into_iter(), JoinSet::new(), Vec::new());
    loop {
        while running.len() < limit
            && let Some(next) = waiting.next()
        {
            running.spawn(next);
        }
        match running.join_next().await {
            None => return Ok(results),
            Some(Ok(result)) => results.push(result?),
            // Nothing here aborts a task, so that one which has not ended well has panicked.
            Some(Err(stopped)) => resume_unwind(stopped.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn all_run_but_never_too_many_at_a_time() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..50).map(|n| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, ()>(n)
            }
        });
        let mut results = parallel(3, work).await.unwrap();
        results.sort_unstable();
        assert_eq!(results, (0..50).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn the_first_error_ends_it() {
        let work = (0..50).map(|n| async move { if n == 7 { Err(n) } else { Ok(n) } });
        assert_eq!(parallel(3, work).await, Err(7));
    }
}
