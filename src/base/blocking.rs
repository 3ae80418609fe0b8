//! Work that blocks (files, hashing, compression), away from the threads that serve sockets.

use std::panic::resume_unwind;

/// Runs `work` on the runtime's blocking threads. A panic in it goes on in the caller. Dropping the
/// future does not stop work that has begun.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // Only a runtime that shuts down drops blocking work, and then nobody polls this again.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_and_panics_come_back() {
        assert_eq!(blocking(|| 7).await, 7);
        let panicked = tokio::spawn(blocking(|| panic!("as asked"))).await;
        assert!(panicked.unwrap_err().is_panic());
    }
}
