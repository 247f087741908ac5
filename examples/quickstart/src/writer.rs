//! An application that keeps writing, and that can be paused for a moment.

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use backup_kit::{Error, ErrorKind, Pause, Quiesce, Result, async_trait};

use crate::memory::{Recall, database};

/// A writer on a thread of its own: one transaction after the other, as fast as it can.
pub(crate) struct Writer {
    gate: Gate,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI64>,
    thread: JoinHandle<Result<()>>,
}

impl Writer {
    pub(crate) fn start(state: &Path) -> Result<Self> {
        let mut db = database(state)?;
        let gate = Gate::default();
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicI64::new(0));
        let thread = {
            let (gate, stop, written) = (gate.clone(), stop.clone(), written.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let turn = gate.enter();
                    let number = written.load(Ordering::SeqCst) + 1;
                    Recall::nth(number).write(&mut db)?;
                    written.store(number, Ordering::SeqCst);
                    drop(turn);
                }
                Ok(())
            })
        };
        Ok(Self { gate, stop, written, thread })
    }

    /// What a backup asks for a pause.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// How many transactions there were so far.
    pub(crate) fn written(&self) -> i64 {
        self.written.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(self) -> Result<i64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| Error::new(ErrorKind::Adapter, "the writer panicked"))??;
        Ok(self.written.load(Ordering::SeqCst))
    }
}

/// Lets the writer through, or keeps it waiting for as long as a lease lasts.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    writing: bool,
    closed_until: Option<Instant>,
    longest: Duration,
}

impl State {
    fn closed_for(&self) -> Option<Duration> {
        let left = self.closed_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest time that the writer was kept waiting.
    pub(crate) fn longest_pause(&self) -> Duration {
        self.lock().longest
    }

    fn enter(&self) -> Turn {
        let mut state = self.lock();
        let start = Instant::now();
        // The writer itself watches the clock: a lease that nobody ends is over all the same.
        while let Some(left) = state.closed_for() {
            let waited = self.0.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.longest = state.longest.max(start.elapsed());
        state.writing = true;
        Turn(self.clone())
    }
}

struct Turn(Gate);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().writing = false;
        self.0.0.1.notify_all();
    }
}

#[async_trait]
impl Quiesce for Gate {
    async fn pause(&self, lease: Duration) -> Result<Box<dyn Pause>> {
        let mut state = self.lock();
        state.closed_until = Some(Instant::now() + lease);
        while state.writing {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Box::new(Closed(self.clone())))
    }
}

struct Closed(Gate);

#[async_trait]
impl Pause for Closed {
    async fn renew(&self, lease: Duration) -> Result<()> {
        let mut state = self.0.lock();
        if state.closed_for().is_none() {
            return Err(Error::new(ErrorKind::Busy, "the pause has run out"));
        }
        state.closed_until = Some(Instant::now() + lease);
        Ok(())
    }

    async fn resume(self: Box<Self>) -> Result<bool> {
        Ok(self.0.lock().closed_for().is_some())
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.lock().closed_until = None;
        self.0.0.1.notify_all();
    }
}
