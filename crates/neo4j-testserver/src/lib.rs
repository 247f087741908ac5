//! A Neo4j server for the tests of backup-kit: the Community edition, from the artifacts of
//! `pom.xml`, in a Java process of its own. Maven fetches them, once.
//!
//! ```no_run
//! let Some(server) = neo4j_testserver::shared() else { return };
//! server.cypher("CREATE (:Person {name: $name})", serde_json::json!({"name": "Ada"})).unwrap();
//! println!("{}", server.bolt_url());
//! ```
//!
//! A server ends with the test process, however that ends: a shell waits for the end of a pipe
//! from it, then ends Java and removes the folder.

mod artifacts;
mod http;
mod server;
mod shared;

pub use self::{
    artifacts::{available, class_path},
    server::{Options, Server},
    shared::{Lease, several, shared},
};

/// Says aloud that a test is skipped; panics where `BACKUP_KIT_REQUIRE` forbids it.
///
/// # Panics
/// See above.
pub fn skip(what: &str) {
    let required = std::env::var_os("BACKUP_KIT_REQUIRE").is_some_and(|v| !v.is_empty());
    assert!(!required, "BACKUP_KIT_REQUIRE is set, and this cannot be tested: {what}");
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    {
        eprintln!("SKIPPED: {what}");
    }
}
