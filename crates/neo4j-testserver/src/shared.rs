//! One server for all tests of a process, which use it one after the other: the Community
//! edition has one database.

use std::{
    ops::Deref,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use crate::{Options, Server, available, skip};

static SERVER: LazyLock<Result<Mutex<Server>, String>> = LazyLock::new(|| {
    available()?;
    Ok(Mutex::new(Server::start(Options::default()).map_err(|e| e.to_string())?))
});

/// The use of the shared server, until it is dropped.
#[derive(Debug)]
pub struct Lease(MutexGuard<'static, Server>);

/// The server that the tests of this process share, with an empty database; `None`: there can be
/// none, and that was [said](crate::skip).
///
/// # Panics
/// A server that cannot be used, or is missing where `BACKUP_KIT_REQUIRE` is set.
pub fn shared() -> Option<Lease> {
    match &*SERVER {
        Ok(server) => {
            let server = server.lock().unwrap_or_else(PoisonError::into_inner);
            #[expect(clippy::expect_used, reason = "the tests that follow could say nothing")]
            server.clear().expect("the shared server can be cleared");
            Some(Lease(server))
        }
        Err(missing) => {
            skip(missing);
            None
        }
    }
}

impl Deref for Lease {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}
