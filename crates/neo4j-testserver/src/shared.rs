//! Servers that the tests of a process share: the Community edition has one database, so a test
//! that needs two needs two servers.

use std::{
    ops::Deref,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{Options, Server, available, skip};

/// Servers of one process at one time: each takes half a gigabyte and a core while it starts.
const MOST: usize = 3;

static POOL: Pool =
    Pool { state: Mutex::new(State { idle: Vec::new(), used: 0 }), given: Condvar::new() };

struct Pool {
    state: Mutex<State>,
    given: Condvar,
}

struct State {
    idle: Vec<Server>,
    used: usize,
}

/// The use of a shared server, until it is dropped.
#[derive(Debug)]
pub struct Lease(Option<Server>);

/// A server that the tests of this process share, with an empty database; `None`: there can be
/// none, and that was [said](crate::skip).
///
/// # Panics
/// A server that cannot be used, or is missing where `BACKUP_KIT_REQUIRE` is set.
pub fn shared() -> Option<Lease> {
    several(1)?.pop()
}

/// As [`shared`], several at once; whoever needs more than one takes them together, or two tests
/// might wait for each other.
///
/// # Panics
/// As [`shared`]; more than three.
pub fn several(count: usize) -> Option<Vec<Lease>> {
    assert!(count <= MOST, "{count} servers are more than there may be");
    if let Err(missing) = available() {
        skip(&missing);
        return None;
    }
    let mut leases = POOL.take(count);
    for lease in &mut leases {
        #[expect(clippy::expect_used, reason = "the tests that follow could say nothing")]
        let server = lease.0.take().map_or_else(|| Server::start(lasting()), Ok).expect("a server");
        #[expect(clippy::expect_used, reason = "the tests that follow could say nothing")]
        server.clear().expect("a shared server can be cleared");
        lease.0 = Some(server);
    }
    Some(leases)
}

/// It runs for minutes, most of which it plans statements: what is compiled well pays for itself
/// (a conformance suite in 263 seconds instead of 355).
fn lasting() -> Options {
    Options { quick: false, ..Options::default() }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn; a lease without a server has still to start one.
    fn take(&self, count: usize) -> Vec<Lease> {
        let mut state = self.state();
        while state.used + count > MOST {
            state = self.given.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.used += count;
        std::iter::repeat_with(|| Lease(state.idle.pop())).take(count).collect()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = POOL.state();
        state.used -= 1;
        state.idle.extend(self.0.take());
        POOL.given.notify_all();
    }
}

impl Deref for Lease {
    type Target = Server;

    fn deref(&self) -> &Server {
        #[expect(clippy::expect_used, reason = "a lease that was given has its server")]
        self.0.as_ref().expect("a lease has its server until it is dropped")
    }
}
