//! Work that blocks (files, hashing, compression), away from the threads that serve sockets.

use std::panic::resume_unwind;

/// Starts `work` on the runtime's blocking threads, at once; the future waits for it. A panic in it
/// goes on in the one who waits. Dropping the future does not stop the work. Call it on a runtime.
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send {
    let started = tokio::task::spawn_blocking(work);
    async {
        match started.await {
            Ok(result) => result,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // Only a runtime that shuts down drops blocking work; nobody polls this again.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_and_panics_come_back() {
        assert_eq!(blocking(|| 7).await, 7);
        let panicked = tokio::spawn(async { blocking(|| panic!("as asked")).await }).await;
        assert!(panicked.unwrap_err().is_panic());
    }
}
