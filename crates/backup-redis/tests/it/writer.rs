//! Somebody who writes meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    /// Writes with 1, 2 and so on, without a pause. It has written `first` times when this returns: a
    /// busy machine may start it late, when all that it was to disturb is over.
    pub(crate) fn start(first: u64, mut write: impl FnMut(u64) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (running, begun) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                write(number);
                if number == first {
                    running.send(()).unwrap();
                }
            }
            number
        });
        begun.recv().unwrap();
        Self { stop, thread }
    }

    /// How often it has written.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
