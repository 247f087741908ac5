//! A thread of its own for a client that blocks.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, mpsc},
    thread,
};

use futures::{FutureExt, channel::oneshot};

use crate::error::{Error, ErrorKind, Result};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A thread that owns a blocking client `S` and does one call after the other.
///
/// This is how an adapter for a blocking library becomes async without a runtime: the state
/// is made, used and dropped on that thread alone, so it need not be `Send`. The thread ends
/// when the worker is dropped and the call under way has ended.
///
/// ```
/// use backup_core::Worker;
///
/// let worker = Worker::spawn("counter", || Ok(0_u32))?;
/// let two = futures::executor::block_on(worker.call(|n| {
///     *n += 2;
///     Ok(*n)
/// }))?;
/// assert_eq!(two, 2);
/// # Ok::<(), backup_core::Error>(())
/// ```
pub struct Worker<S> {
    name: String,
    jobs: Mutex<mpsc::Sender<Job<S>>>,
}

impl<S: 'static> Worker<S> {
    /// Starts the thread; `init` makes the state on it.
    ///
    /// # Errors
    /// What `init` returns; the system has no thread left.
    pub fn spawn(
        name: impl Into<String>,
        init: impl FnOnce() -> Result<S> + Send + 'static,
    ) -> Result<Self> {
        let name = name.into();
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let (ready, started) = mpsc::sync_channel::<Result<()>>(1);
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let mut state = match init() {
                    Ok(state) => state,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                let _ = ready.send(Ok(()));
                while let Ok(job) = queue.recv() {
                    job(&mut state);
                }
            })
            .map_err(|e| Error::io("could not start a thread", e))?;
        started.recv().map_err(|_| Error::adapter("a worker thread panicked").on(&name))??;
        Ok(Self { name, jobs: Mutex::new(jobs) })
    }

    /// Runs `job` on the thread: it is sent at once and runs even if the returned future is
    /// dropped or never polled.
    ///
    /// # Errors
    /// What `job` returns; [`Adapter`](ErrorKind::Adapter) where it panicked.
    pub fn call<T, J>(&self, job: J) -> impl Future<Output = Result<T>> + Send + use<S, T, J>
    where
        T: Send + 'static,
        J: FnOnce(&mut S) -> Result<T> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| {
            let outcome = catch_unwind(AssertUnwindSafe(|| job(state)));
            let _ = answer.send(outcome.unwrap_or_else(|panic| Err(panicked(&*panic))));
        });
        let sent = self.jobs.lock().is_ok_and(|jobs| jobs.send(job).is_ok());
        let name = self.name.clone();
        async move {
            let gone = || Error::new(ErrorKind::Adapter, "a worker thread is gone").on(name);
            if sent { result.await.map_err(|_| gone())? } else { Err(gone()) }
        }
    }
}

/// What became of a call into an adapter that panicked.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default();
    Error::adapter(format!("an adapter panicked: {text}"))
}

/// Calls into the adapter of `store`: its errors name the store, its panics are errors.
pub(crate) async fn guarded<T>(store: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(result) => result.map_err(|error| error.on(store)),
        Err(panic) => Err(panicked(&*panic).on(store)),
    }
}

impl<S> std::fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn a_panic_is_an_error_and_the_worker_goes_on() {
        let worker = Worker::spawn("w", || Ok(1)).unwrap();
        let error = block_on(worker.call(|_| -> Result<()> { panic!("no") })).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Adapter);
        assert_eq!(block_on(worker.call(|n| Ok(*n))).unwrap(), 1);
    }

    #[test]
    fn a_call_that_is_not_awaited_runs_all_the_same() {
        let worker = Worker::spawn("w", || Ok(1)).unwrap();
        drop(worker.call(|n| {
            *n += 1;
            Ok(())
        }));
        assert_eq!(block_on(worker.call(|n| Ok(*n))).unwrap(), 2);
    }

    #[test]
    fn a_state_that_cannot_be_made_is_an_error() {
        let made = Worker::<u8>::spawn("w", || Err(Error::adapter("no")));
        assert!(made.is_err());
    }
}
