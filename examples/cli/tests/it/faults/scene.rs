//! An application before a backup, before a restore and in the middle of one, and what has to
//! be true of it whatever happens.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::strace::{Blow, Strike, Traced, strike};
use crate::world::{CONFIG, World};

pub(super) const RESTORE: [&str; 3] = ["restore", "latest", "--yes"];
pub(super) const MERGE: [&str; 4] = ["restore", "latest", "--merge", "--yes"];

const NO_JOURNAL: &str = "none";

/// What the live stores hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Live {
    notes: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
}

/// Where the catalog lies, which decides how the folder is switched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Catalog {
    /// Beside it: by one exchange of names.
    Beside,
    /// In it: entry by entry.
    Inside,
}

pub(super) struct Scene {
    pub(super) world: World,
    pub(super) old: Live,
    pub(super) new: Live,
    /// How it is restored.
    restore: &'static [&'static str],
}

impl Catalog {
    fn path(self) -> &'static str {
        match self {
            Self::Beside => "backups",
            Self::Inside => "uploads/backups",
        }
    }
}

impl Scene {
    /// Before the first backup.
    pub(super) fn fresh(catalog: Catalog) -> Self {
        Self::of(World::within(Path::new("/dev/shm"), &config(catalog.path())))
    }

    pub(super) fn of(world: World) -> Self {
        let live = Live::of(&world);
        Self { world, old: live.clone(), new: live, restore: &RESTORE }
    }

    /// A backup of the database's records, which are to be added to others: `new` is both.
    pub(super) fn merging() -> Self {
        let logical = config(Catalog::Beside.path())
            .replace("path = \"state.db\"", "path = \"state.db\"\nmode = \"logical\"");
        let mut scene = Self::of(World::within(Path::new("/dev/shm"), &logical));
        scene.world.good(&["create", "--include", "state"]);
        let since = "UPDATE notes SET text = 'x' WHERE id = 1;
                     INSERT INTO notes (id, text) VALUES (9, 'mine')";
        scene.world.db().execute_batch(since).unwrap();
        scene.old = Live::of(&scene.world);
        scene.new.notes = ["first", "second", "mine"].map(str::to_owned).into();
        scene.restore = &MERGE;
        scene
    }

    /// A backup, and stores that have changed since: `new` is what the backup holds.
    pub(super) fn changed(catalog: Catalog) -> Self {
        Self::fresh(catalog).change(None)
    }

    /// The same with a backup of this store only.
    pub(super) fn changed_in(catalog: Catalog, only: Option<&str>) -> Self {
        Self::fresh(catalog).change(only)
    }

    pub(super) fn change(mut self, only: Option<&str>) -> Self {
        let world = &self.world;
        match only {
            None => world.good(&["create"]),
            Some(store) => world.good(&["create", "--include", store]),
        };
        world.db().execute_batch("UPDATE notes SET text = 'x'; CREATE TABLE t (x)").unwrap();
        fs::write(world.path("uploads/a.md"), "changed").unwrap();
        fs::write(world.path("uploads/b"), "since").unwrap();
        fs::remove_dir_all(world.path("uploads/sub")).unwrap();
        self.old = Live::of(world);
        match only {
            Some("state") => self.new.files = self.old.files.clone(),
            Some(_) => self.new.notes = self.old.notes.clone(),
            None => {}
        }
        assert_ne!(self.old, self.new);
        self
    }

    /// A restore that was killed before it synced the `nth` line of its journal: staged,
    /// verified, committing one, committing the other, committed, finishing, finished.
    pub(super) fn interrupted(nth: usize) -> Self {
        let scene = Self::changed(Catalog::Beside);
        let journal = scene.world.path("backups/restore.journal");
        let kill = Strike::new("fsync", nth, Blow::Kill).on(journal);
        assert!(strike(&scene.world, &RESTORE, &kill).killed());
        scene
    }

    /// The last step in the journal.
    pub(super) fn step(&self) -> String {
        let names = self.world.list("");
        let Some(journal) = names.iter().find(|name| name.ends_with("restore.journal")) else {
            return NO_JOURNAL.into();
        };
        let text = fs::read_to_string(self.world.path(journal)).unwrap();
        let last = text.lines().last().and_then(|line| line.split_once(' '));
        let last: Value = serde_json::from_str(last.unwrap_or_default().1).unwrap_or_default();
        last["step"].as_str().unwrap_or("begun").into()
    }

    pub(super) fn live(&self) -> Live {
        Live::of(&self.world)
    }

    pub(super) fn listed(&self) -> Vec<Value> {
        let list = self.world.json(0, &["list"]);
        assert_eq!(list["damaged"], Value::Array(Vec::new()), "{list}");
        list["archives"].as_array().unwrap().clone()
    }

    /// After a `create` that was struck: no store is touched, an archive is absent or whole,
    /// and the next run is as if nothing had been.
    pub(super) fn backed_up_or_not(&self, struck: &Traced) {
        struck.no_failed_sync_is_passed_over();
        let archives = self.listed().len();
        if struck.ran.code == Some(0) {
            assert_eq!(archives, 1, "a success without an archive");
        } else if !struck.killed() && !struck.only_words() {
            assert_eq!(archives, 0, "a failure with an archive");
        }
        self.every_archive_is_whole();
        assert_eq!(self.live(), self.old, "a backup changed a store");
        self.world.good(&["create"]);
        assert_eq!(self.listed().len(), archives + 1);
        self.every_archive_is_whole();
        let left = self.world.list("");
        assert!(!left.iter().any(|name| name.contains(".partial")), "{left:?}");
    }

    fn every_archive_is_whole(&self) {
        for archive in self.listed() {
            self.world.good(&["validate", archive["path"].as_str().unwrap()]);
        }
    }

    /// After a `restore` that was struck: what it said is so, and it [settles](Self::settled).
    pub(super) fn restored_or_not(&self, struck: &Traced) {
        struck.no_failed_sync_is_passed_over();
        if struck.ran.code == Some(0) {
            assert_eq!(self.live(), self.new, "a success, and the stores are not restored");
        } else if !struck.killed() && !struck.only_words() && self.step() == NO_JOURNAL {
            assert_eq!(self.live(), self.old, "a failure, and the stores are not as before");
        }
        self.settled(struck);
    }

    /// All stores are old or all are new once `resume` has run, nothing is left, and the next
    /// restore works.
    pub(super) fn settled(&self, _: &Traced) {
        let ran = self.world.run(&["resume", "--json"]);
        let live = self.live();
        match ran.document()["restored"] {
            Value::Bool(true) => assert_eq!(live, self.new, "resumed forward"),
            Value::Bool(false) => assert_eq!(live, self.old, "resumed back"),
            _ => assert!(live == self.old || live == self.new, "{ran:?}: {live:?}"),
        }
        assert!(matches!(ran.code, Some(0 | 1)), "{ran:?}");
        assert_eq!(self.world.good(&["resume"]), "nothing to resume\n");
        self.nothing_is_left();
        assert_eq!(self.listed().len(), 1);
        self.world.good(self.restore);
        assert_eq!(self.live(), self.new, "the next restore");
        self.nothing_is_left();
        let kept = self.world.list("backups/before-restore");
        for name in kept.iter().filter(|name| name.ends_with(".tar.gz")) {
            self.world.good(&["validate", &format!("backups/before-restore/{name}")]);
        }
    }

    pub(super) fn nothing_is_left(&self) {
        let left = self.world.list("");
        let hidden = |name: &&String| name.split('/').any(|part| part.starts_with('.'));
        let left: Vec<_> = left.iter().filter(hidden).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Two stores, nothing of them left out, and a catalog.
pub(super) fn config(catalog: &str) -> String {
    let config = CONFIG.replace("\"backups\"", &format!("{catalog:?}"));
    config.replace("exclude = [\"*.tmp\"]", "")
}

impl Live {
    fn of(world: &World) -> Self {
        let mut files = BTreeMap::new();
        for name in world.list("uploads") {
            let path = world.path("uploads").join(&name);
            if !name.starts_with("backups") {
                let content = if path.is_dir() { b"/".into() } else { fs::read(path).unwrap() };
                files.insert(name, content);
            }
        }
        Self { notes: world.notes(), files }
    }
}
