//! The switch key by key, where there is no spare database, or only some keys are restored.
//!
//! Every staged key has a name in the slot of its live one. A script moves the live key aside,
//! or notes that there was none, and the staged one in: so each key is old or new, and what was
//! done is seen from the names that are there. It may be repeated, and taken back.

use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use redis::Pipeline;

use crate::{
    back::changed,
    place::{Place, pattern},
    reader::{Found, Reader},
    slots,
    stage::{ROUND, Session, Target, names},
    token::State,
};

// All of them run without memory, too: what is moved needs none, and a restore that ran out of
// it has to be taken back.

/// Keys: live, new, old, none. Moves the new one in.
const SWITCH: &str = "#!lua flags=allow-oom\n if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end \
     if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[3]) \
     else redis.call('SET', KEYS[4], '') end \
     redis.call('RENAME', KEYS[2], KEYS[1]) return 1";
/// Keys: live, new, old. Moves a live key aside that has no new one.
const CLEAR: &str = "#!lua flags=allow-oom\n if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end \
     if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end \
     redis.call('RENAME', KEYS[1], KEYS[3]) return 1";
/// Keys: live, none. Removes what was moved in where nothing was.
const EMPTY: &str = "#!lua flags=allow-oom\n if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end \
     redis.call('UNLINK', KEYS[1]) redis.call('DEL', KEYS[2]) return 1";
/// Keys: live, old. Brings the old one back.
const BACK: &str = "#!lua flags=allow-oom\n if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end \
     redis.call('RENAME', KEYS[2], KEYS[1]) return 1";

impl Session {
    pub(crate) async fn rename_in(&self, state: State) -> Result<()> {
        let mut state = state;
        if state == State::Sealed {
            self.nothing_changed().await?;
            state = if self.token.merge { State::Switching } else { State::Clearing };
            self.set_state(state).await?;
        }
        let switched = self.go_on(state).await;
        match switched {
            Ok(()) => Ok(()),
            Err(error) => {
                // Half of the keys are new: all of them become old again.
                let back = self.uncancelled().rename_back().await;
                back.map_err(|failed| {
                    let what = "the switch broke off, and what was replaced cannot be put back";
                    Error::new(ErrorKind::RepairNeeded, what)
                        .on(format!("on the server, under {}", self.token.marker()))
                        .because(failed)
                        .advise("when the server is well again, call resume")
                })?;
                Err(error)
            }
        }
    }

    async fn go_on(&self, state: State) -> Result<()> {
        let targets = self.targets().await?;
        if state == State::Clearing {
            for target in &targets {
                self.clear(target).await?;
            }
            self.set_state(State::Switching).await?;
        }
        for target in &targets {
            if self.token.merge {
                self.switch_as_told(target).await?;
            } else {
                self.each(target, 'n', SWITCH, &['n', 'o', 'x']).await?;
            }
        }
        self.set_state(State::Committed).await
    }

    // Moves staged keys in, each round in a transaction that the server refuses if one of its
    // live keys is not any more what the caller decided by.
    async fn switch_as_told(&self, target: &Target) -> Result<()> {
        let mut keys = self.keys_aside(target, 'n').await?;
        keys.sort_by_cached_key(|key| slots::slot(key));
        // A transaction of a cluster has one slot.
        let together =
            |a: &Bytes, b: &Bytes| target.slots.is_none() || slots::slot(a) == slots::slot(b);
        for round in keys.chunk_by(together).flat_map(|keys| keys.chunks(ROUND)) {
            self.cancel.check()?;
            let ids: Vec<_> = round.iter().map(|key| (target.db, key.clone())).collect();
            let mut watch = redis::cmd("WATCH");
            for key in round {
                watch.arg(&key[..]);
            }
            target.live.one(&watch).await?;
            self.as_told(&ids).await?;
            let calls = self.calls(SWITCH, &['n', 'o', 'x'], round);
            if target.live.transaction(RENAMES, &calls).await.map_err(needs)?.is_none() {
                return Err(changed("one of the keys", target.live.name()));
            }
        }
        Ok(())
    }

    pub(crate) async fn rename_back(&self) -> Result<()> {
        match self.state().await? {
            None => return Err(Error::out_of_order("undo", "nothing was committed")),
            Some(State::Undone) => return Ok(()),
            Some(_) => self.set_state(State::Undoing).await?,
        }
        self.extras_back(true).await?;
        for target in &self.targets().await? {
            self.each(target, 'x', EMPTY, &['x']).await?;
            self.each(target, 'o', BACK, &['o']).await?;
        }
        self.set_state(State::Undone).await
    }

    // Moves aside the live keys that the archive does not have. Only before the first staged
    // key was moved in: after that a live key without a staged one may be new.
    async fn clear(&self, target: &Target) -> Result<()> {
        let options = Arc::clone(&self.options);
        let cancel = self.cancel.clone();
        let mut reader = Reader::scan(target.live.clone(), target.db, options, cancel);
        reader.names_only = true;
        let mut keys: Vec<Bytes> = Vec::new();
        while let Some(found) = reader.next(&|_| true).await? {
            if let Found::Key(key) = found {
                keys.push(key);
            }
            if keys.len() >= ROUND {
                self.run(target, CLEAR, &['n', 'o'], &std::mem::take(&mut keys)).await?;
            }
        }
        self.run(target, CLEAR, &['n', 'o'], &keys).await
    }

    // Runs a script for every key that has a name of one kind.
    async fn each(
        &self,
        target: &Target,
        kind: char,
        script: &str,
        names_of: &[char],
    ) -> Result<()> {
        for round in self.keys_aside(target, kind).await?.chunks(ROUND) {
            self.cancel.check()?;
            self.run(target, script, names_of, round).await?;
        }
        Ok(())
    }

    async fn keys_aside(&self, target: &Target, kind: char) -> Result<Vec<Bytes>> {
        let place = Place::aside(&self.token.id, kind);
        let found = names(&target.live, &pattern(&self.token.id, kind), &self.cancel).await?;
        Ok(found.iter().filter_map(|name| place.key_of(name)).collect())
    }

    async fn run(
        &self,
        target: &Target,
        script: &str,
        names_of: &[char],
        keys: &[Bytes],
    ) -> Result<()> {
        let calls = self.calls(script, names_of, keys);
        target.live.every(RENAMES, &calls).await.map(drop).map_err(needs)
    }

    // The script for each of the keys.
    fn calls(&self, script: &str, names_of: &[char], keys: &[Bytes]) -> Pipeline {
        let places: Vec<Place> =
            names_of.iter().map(|kind| Place::aside(&self.token.id, *kind)).collect();
        let mut calls = Pipeline::with_capacity(keys.len());
        for key in keys {
            let call = calls.cmd("EVAL").arg(script).arg(places.len() + 1).arg(&key[..]);
            for place in &places {
                call.arg(&place.name(key)[..]);
            }
        }
        calls
    }
}

const RENAMES: &str = "a key cannot be renamed";

fn needs(error: Error) -> Error {
    if error.kind() == ErrorKind::Io {
        return error.advise("the switch needs EVAL and RENAME: see the server's log");
    }
    error
}
