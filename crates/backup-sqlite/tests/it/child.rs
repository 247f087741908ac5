//! What a second process does: this test binary, run again.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use backup_core::{Sink, StageToken};
use backup_sqlite::{SqliteStore, rusqlite::Connection};
use futures::executor::block_on;

const TASK: &str = "BACKUP_SQLITE_CHILD";
const DONE: &str = "child did its task";

fn command(task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child::child", "--nocapture"])
        .env(TASK, task)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Whether another process can write to a database at this moment.
pub(crate) fn can_write(database: &Path) -> bool {
    let output = command(&format!("write\n{}", database.display())).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains(DONE)
}

/// Commits what is staged, in another process.
pub(crate) fn commit(database: &Path, token: &StageToken) -> Child {
    let token = serde_json::to_string(token).unwrap();
    command(&format!("commit\n{}\n{token}", database.display())).spawn().unwrap()
}

/// Merges the records of one database into another, in another process; says what it took.
#[cfg(target_os = "linux")]
pub(crate) fn merge(database: &Path, archive: &Path) -> String {
    let task = format!("merge\n{}\n{}", database.display(), archive.display());
    let output = command(&task).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(DONE), "{said}");
    said
}

/// The other process; without a task there is nothing to do.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<_> = task.split('\n').collect();
    match words[..] {
        ["write", database] => {
            let connection = Connection::open(database).unwrap();
            connection.busy_timeout(Duration::ZERO).unwrap();
            connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
        }
        ["commit", database, token] => {
            let token: StageToken = serde_json::from_str(token).unwrap();
            let store = SqliteStore::open(database).unwrap();
            block_on(async {
                let backup_core::Reattached::Staged(session) = store.reattach(&token).await? else {
                    panic!("not staged")
                };
                session.commit().await
            })
            .unwrap();
        }
        #[cfg(target_os = "linux")]
        ["merge", database, archive] => crate::memory::stream(database, archive),
        _ => panic!("unknown task"),
    }
    writeln!(std::io::stdout(), "{DONE}").unwrap();
}
