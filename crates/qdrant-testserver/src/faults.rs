//! Faults on request: answers that a healthy server would not give.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which requests a [`Fault`] meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// REST requests with this method and a path that begins so.
    Rest {
        /// The method in capitals; empty for any.
        method: String,
        /// How the path begins.
        path: String,
    },
    /// gRPC calls of this method, such as `Upsert`.
    Grpc {
        /// The method's name; empty for any of the points service.
        method: String,
    },
}

impl Match {
    /// REST requests with `method` (any if empty) and a path that begins with `path`.
    pub fn rest(method: &str, path: &str) -> Self {
        Self::Rest { method: method.to_owned(), path: path.to_owned() }
    }

    /// gRPC calls of `method`, such as `Upsert` or `Scroll` (any if empty).
    pub fn grpc(method: &str) -> Self {
        Self::Grpc { method: method.to_owned() }
    }

    fn meets(&self, request: &Self) -> bool {
        match (self, request) {
            (Self::Rest { method, path }, Self::Rest { method: m, path: p }) => {
                (method.is_empty() || method == m) && p.starts_with(path.as_str())
            }
            (Self::Grpc { method }, Self::Grpc { method: m }) => method.is_empty() || method == m,
            _ => false,
        }
    }
}

/// What happens to a request that a [`Fault`] meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is answered with this status and text and not carried out. The status is HTTP's; over
    /// gRPC it becomes the code that the server sends for it.
    Status(u16, String),
    /// It is answered this much later.
    Delay(Duration),
    /// It is carried out, and the connection breaks after so many bytes of the answer's body. Over
    /// gRPC the whole answer is lost: the client is told `UNAVAILABLE`.
    Cut(u64),
    /// It is carried out, and one bit of the answer's body is wrong at this place. REST only.
    Corrupt(u64),
}

impl Action {
    /// The answer of a server whose disk is full.
    pub fn disk_full() -> Self {
        let text = "Service internal error: No space left on device: WAL buffer size exceeds \
                    available disk space";
        Self::Status(500, text.to_owned())
    }
}

/// Something that goes wrong, once or several times.
#[derive(Clone, Debug)]
pub struct Fault {
    requests: Match,
    action: Action,
    skip: usize,
    times: usize,
}

impl Fault {
    /// A fault that the next of these requests meets.
    pub fn new(requests: Match, action: Action) -> Self {
        Self { requests, action, skip: 0, times: 1 }
    }

    /// For so many requests.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// For every such request until [`Faults::clear`].
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Only after so many such requests have passed unharmed.
    #[must_use]
    pub fn after(self, requests: usize) -> Self {
        Self { skip: requests, ..self }
    }
}

/// The faults that a running server will show. Clones share them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<VecDeque<Fault>>>);

impl Faults {
    /// Adds a fault; of several that meet a request, the first added goes first.
    pub fn push(&self, fault: Fault) {
        self.lock().push_back(fault);
    }

    /// Forgets those that have not happened.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How many have not happened, or not yet as often as they should.
    pub fn left(&self) -> usize {
        self.lock().len()
    }

    /// What happens to a request.
    pub(crate) fn take(&self, request: &Match) -> Option<Action> {
        let mut faults = self.lock();
        for index in 0..faults.len() {
            let fault = &mut faults[index];
            if !fault.requests.meets(request) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            let action = fault.action.clone();
            if fault.times != usize::MAX {
                fault.times -= 1;
            }
            if fault.times == 0 {
                faults.remove(index);
            }
            return Some(action);
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter()).finish()
    }
}
