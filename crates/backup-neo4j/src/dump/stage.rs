//! What a restore keeps in its folder, and how far it came.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use backup_core::{BlobContent, Cancel, Error, ErrorKind, Result, record::MaskedHasher};
use serde::{Deserialize, Serialize};

use super::Place;

/// How far a restore came; stands in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// The live database is the old one.
    Staged,
    /// It is being replaced: it is anything.
    Loading,
    /// It is the new one.
    Committed,
    /// The old one is being put back: it is anything.
    Undoing,
    /// It is the old one again.
    Undone,
}

/// The folder of one restore.
#[derive(Debug, Clone)]
pub(crate) struct Stage(pub(crate) PathBuf);

impl Stage {
    /// # Errors
    /// A name that no restore has: it comes from a journal that may be damaged.
    pub(crate) fn of(place: &Place, restore: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if restore.is_empty() || !restore.chars().all(plain) {
            let what = "the name of a restore cannot be that of a folder";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(restore));
        }
        Ok(Self(place.folder.join(format!("restore-{restore}"))))
    }

    pub(crate) fn dump(&self) -> PathBuf {
        self.0.join("new.dump")
    }

    /// What was there before; not there where there was no database.
    fn before(&self) -> PathBuf {
        self.0.join("old.dump")
    }

    pub(crate) fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.0).map_err(|e| self.io(e))?;
        self.set(State::Staged)
    }

    pub(crate) fn remove(&self) -> Result<()> {
        // First what says how far it came: half removed, it is not there.
        let removed = |done: io::Result<()>| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io(error)),
            _ => Ok(()),
        };
        removed(fs::remove_file(self.0.join("state")))?;
        removed(fs::remove_dir_all(&self.0))
    }

    /// How far the restore came; `None`: there is none.
    pub(crate) fn state(&self) -> Result<Option<State>> {
        let path = self.0.join("state");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| {
                Error::new(ErrorKind::RepairNeeded, "it cannot be told how far a restore came")
                    .on(path.display())
                    .because(e)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(error)),
        }
    }

    fn set(&self, state: State) -> Result<()> {
        let written = || {
            let new = self.0.join("state.new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&state)?)?;
            file.sync_all()?;
            fs::rename(&new, self.0.join("state"))?;
            File::open(&self.0)?.sync_all()
        };
        written().map_err(|e| self.io(e))
    }

    fn io(&self, error: io::Error) -> Error {
        Error::io("the folder of a restore cannot be used", error).on(self.0.display())
    }

    /// What is staged.
    pub(crate) fn content(&self, cancel: &Cancel) -> Result<BlobContent> {
        let mut file = File::open(self.dump()).map_err(|e| self.io(e))?;
        let mut digest = MaskedHasher::new(&[]);
        let mut buffer = vec![0; 256 << 10];
        let mut len = 0;
        loop {
            cancel.check()?;
            match file.read(&mut buffer).map_err(|e| self.io(e))? {
                0 => break,
                read => {
                    digest.update(&buffer[..read]);
                    len += read as u64;
                }
            }
        }
        Ok(BlobContent { len, digest: digest.finish(), masked: Vec::new() })
    }

    /// Loads what is staged into a database of its own, has it checked, and removes it.
    pub(crate) fn try_out(&self, place: &Place, cancel: &Cancel) -> Result<()> {
        self.in_copy(place, &self.dump(), cancel, |settings| {
            place.admin.check(&place.database, Some(settings))
        })
    }

    fn in_copy(
        &self,
        place: &Place,
        dump: &Path,
        cancel: &Cancel,
        then: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let copy = self.0.join("copy");
        let settings = self.0.join("copy.conf");
        let data = copy.join("data");
        let logs = copy.join("transactions");
        let lines = format!(
            "server.directories.data={}\nserver.directories.transaction.logs.root={}\n",
            data.display(),
            logs.display()
        );
        fs::create_dir_all(&copy)
            .and_then(|()| fs::write(&settings, lines))
            .map_err(|e| self.io(e))?;
        let tried = place
            .admin
            .load(&place.database, dump, Some(&settings), cancel)
            .and_then(|()| then(&settings));
        fs::remove_dir_all(&copy).map_err(|e| self.io(e))?;
        tried
    }

    /// Keeps the live database and loads the staged one over it.
    pub(crate) fn commit(&self, place: &Place) -> Result<()> {
        match self.state()? {
            Some(State::Committed) => return Ok(()),
            Some(State::Staged) => {}
            state => return Err(Error::out_of_order("commit", at(state))),
        }
        let there =
            place.admin.dump_to(&place.database, &self.before()).map_err(|e| match e.kind() {
                ErrorKind::Busy | ErrorKind::NoSpace => e,
                _ => e.advise(
                    "a database that cannot be dumped is not replaced: move its folder away first",
                ),
            })?;
        if there {
            // Only whether it can be read: what is there may be what is to be replaced for its damage.
            self.in_copy(place, &self.before(), &Cancel::new(), |_| Ok(()))?;
        } else {
            fs::remove_file(self.before()).map_err(|e| self.io(e))?;
        }
        self.set(State::Loading)?;
        match place.admin.load(&place.database, &self.dump(), None, &Cancel::new()) {
            Ok(()) => self.set(State::Committed),
            Err(error) => match self.put_back(place) {
                Ok(()) => self.set(State::Staged).and(Err(error)),
                Err(_) => Err(self.mixed(place).because(error)),
            },
        }
    }

    /// Makes the database that was there before the live one again.
    pub(crate) fn undo(&self, place: &Place) -> Result<()> {
        if self.state()? == Some(State::Undone) {
            return Ok(());
        }
        if !self.before().exists() {
            let what = "there was no database before, and the server's tool cannot remove one";
            return Err(Error::new(ErrorKind::RepairNeeded, what)
                .on(&place.database)
                .advise("remove the database's folder by hand, or keep what was restored"));
        }
        self.set(State::Undoing)?;
        self.put_back(place).map_err(|e| self.mixed(place).because(e))?;
        self.set(State::Undone)
    }

    /// Before the switch: leaves nothing. Behind it the old database is in this folder.
    pub(crate) fn abort(&self) -> Result<()> {
        match self.state()? {
            None | Some(State::Staged) => self.remove(),
            state => Err(Error::out_of_order("abort", at(state))),
        }
    }

    /// After the switch, or its undoing: leaves nothing.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.state()? {
            None | Some(State::Committed | State::Undone) => self.remove(),
            state => Err(Error::out_of_order("finish", at(state))),
        }
    }

    /// Finds out how far a restore came, and ends a load that broke off.
    pub(crate) fn recover(&self, place: &Place) -> Result<Option<State>> {
        let state = self.state()?;
        let settled = match state {
            Some(State::Loading) => State::Staged,
            Some(State::Undoing) => State::Undone,
            other => return Ok(other),
        };
        if !self.before().exists() {
            // There is no other way than forward.
            place.admin.load(&place.database, &self.dump(), None, &Cancel::new())?;
            self.set(State::Committed)?;
            return Ok(Some(State::Committed));
        }
        self.put_back(place)?;
        self.set(settled)?;
        Ok(Some(settled))
    }

    fn put_back(&self, place: &Place) -> Result<()> {
        if !self.before().exists() {
            return Err(Error::new(ErrorKind::NotFound, "there was no database before"));
        }
        place.admin.load(&place.database, &self.before(), None, &Cancel::new())
    }

    fn mixed(&self, place: &Place) -> Error {
        Error::new(ErrorKind::RepairNeeded, "a database is neither the old nor the new one")
            .on(&place.database)
            .advise(format!(
                "stop the server, then resume the restore; both dumps are in {}",
                self.0.display()
            ))
    }
}

fn at(state: Option<State>) -> String {
    state.map_or("nothing is staged".to_owned(), |state| format!("the restore is {state:?}"))
}
