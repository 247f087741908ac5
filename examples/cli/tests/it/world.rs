//! An application with a database, a folder of uploads and a configuration.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use backup_kit::sqlite::rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const CONFIG: &str = r#"
[app]
name = "docs-memory"
version = "1.4.0"

[catalog]
path = "backups"

[[store]]
name = "state"
kind = "sqlite"
path = "state.db"

[[store]]
name = "uploads"
kind = "files"
path = "uploads"
exclude = ["*.tmp"]
"#;

/// Says that something was not tested; an error where that is not allowed.
pub(crate) fn skipped(what: &str) {
    let required = std::env::var_os("BACKUP_KIT_REQUIRE").is_some_and(|v| !v.is_empty());
    assert!(!required, "BACKUP_KIT_REQUIRE is set, and this cannot be tested: {what}");
    // Not through the macro: the harness would keep it to itself.
    std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes()).unwrap();
}

/// A folder of its own for each test.
pub(crate) struct World {
    folder: TempDir,
}

/// What a run of the tool came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    /// Stores with something in them, and the configuration.
    pub(crate) fn new() -> Self {
        Self::with(CONFIG)
    }

    pub(crate) fn with(config: &str) -> Self {
        Self::at(tempfile::tempdir().unwrap(), config)
    }

    /// In a folder of this one, or where it is missing in the usual place: a file system in
    /// memory is for many short runs.
    pub(crate) fn within(place: &Path, config: &str) -> Self {
        let folder = tempfile::tempdir_in(place).or_else(|_| tempfile::tempdir());
        Self::at(folder.unwrap(), config)
    }

    fn at(folder: TempDir, config: &str) -> Self {
        let world = Self { folder };
        fs::write(world.path("backup.toml"), config).unwrap();
        let db = world.db();
        db.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
             INSERT INTO notes (text) VALUES ('first'), ('second');",
        )
        .unwrap();
        fs::create_dir_all(world.path("uploads/sub")).unwrap();
        fs::write(world.path("uploads/a.md"), "# A\n").unwrap();
        fs::write(world.path("uploads/sub/b.html"), "<p>B</p>\n").unwrap();
        fs::write(world.path("uploads/left.tmp"), "not this").unwrap();
        world
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn db(&self) -> Connection {
        Connection::open(self.path("state.db")).unwrap()
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let db = self.db();
        let mut query = db.prepare("SELECT text FROM notes ORDER BY id").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// The tool in this folder, with nothing of the environment that changes how it looks.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup-kit"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// A run that has to succeed; what it says on standard output.
    pub(crate) fn good(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:#?}");
        ran.out
    }

    /// A run with `--json` and its one document.
    pub(crate) fn json(&self, code: i32, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:#?}");
        ran.document()
    }

    /// The names below a folder, sorted.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        fn into(all: &mut Vec<String>, root: &Path, folder: &Path) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                all.push(path.strip_prefix(root).unwrap().display().to_string());
                if path.is_dir() {
                    into(all, root, &path);
                }
            }
        }
        let root = self.path(name);
        let mut all = Vec::new();
        if root.exists() {
            into(&mut all, &root, &root);
        }
        all.sort();
        all
    }
}

impl Ran {
    /// The document of `--json`: all of standard output, on one line.
    pub(crate) fn document(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:#?}");
        let document: Value = serde_json::from_str(&self.out).unwrap();
        assert_eq!(document["schema"], 1);
        document
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}
