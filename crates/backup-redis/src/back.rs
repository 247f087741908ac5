//! What is read back of a restore: what is staged or live, and what was there before.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use backup_core::{
    Content, Error, ErrorKind, Part, Result,
    record::{BatchBuilder, Key, RecordBatch},
};
use bytes::Bytes;
use redis::{Pipeline, Value};

use crate::{
    model,
    naming::Naming,
    place::{Place, pattern},
    reader::{Found, Reader},
    records::Records,
    stage::{Answers, ROUND, Session, find, names, restored, restored_with},
    token::State,
};

impl Session {
    /// What is staged, or after the commit what is live.
    pub(crate) async fn tally(&self, state: State) -> Result<Content> {
        let live = !matches!(state, State::Staged | State::Sealed);
        let mut content = Content::new();
        for name in &self.token.collections {
            content.collections.entry(name.clone()).or_default();
        }
        self.tally_extras(live, &mut content).await?;
        for target in self.targets().await? {
            let cancel = self.cancel.clone();
            let mut readers = Vec::new();
            if !live {
                let node = target.staging;
                readers.push(Reader::staged(node, target.db, self.staged_place(), cancel));
            } else if self.token.merge {
                // Those that were switched in have left what they replaced, or that nothing was.
                let mut keys = Vec::new();
                for kind in ['o', 'x'] {
                    let place = Place::aside(&self.token.id, kind);
                    let found =
                        names(&target.live, &pattern(&self.token.id, kind), &cancel).await?;
                    keys.extend(found.iter().filter_map(|name| place.key_of(name)));
                }
                let reader = Reader::of(target.live, target.db, keys, cancel);
                readers.push(reader.with_deadlines(&self.live_place()));
            } else {
                let options = Arc::clone(&self.options);
                let reader = Reader::scan(target.live, target.db, options, cancel);
                readers.push(reader.with_deadlines(&self.live_place()));
            }
            for mut reader in readers {
                reader.shift = self.token.shift;
                self.add(reader, &mut content).await?;
            }
        }
        Ok(content)
    }

    async fn add(&self, reader: Reader, content: &mut Content) -> Result<()> {
        let naming = restored(&self.token, &self.options);
        let mut records = Records::new(naming, self.options.look_inside, &[]);
        let mut count = |records: &mut Records| {
            while let Some(part) = records.next() {
                if let Part::Records(batch) = part {
                    let name = batch.collection().to_owned();
                    content.collections.entry(name).or_default().add_batch(&batch);
                }
            }
        };
        let mut pages = reader.ahead(|_| true);
        while let Some(page) = pages.recv().await {
            for found in page? {
                if let Found::Item(item) = found {
                    records.push(&item)?;
                    count(&mut records);
                }
            }
        }
        records.finish()?;
        count(&mut records);
        Ok(())
    }

    /// The live records of some keys; remembers the answer.
    pub(crate) async fn look_up(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        let naming = self.naming_with(collection);
        let mut asked = BTreeMap::<(u32, Bytes), ()>::new();
        for key in keys {
            let (db, key) = naming.key(collection, key)?;
            asked.insert((db, key.into()), ());
        }
        let (batches, found) = self.read_live(asked.keys(), Some(collection)).await?;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, ()) in asked {
            let tally = found.get(&id).cloned().unwrap_or_default();
            // What was told first counts: by that the caller decided.
            answers.entry(id).or_insert(tally);
        }
        Ok(batches)
    }

    /// A collection may be asked about that the archive does not have.
    fn naming_with(&self, collection: &str) -> Naming {
        restored_with(&self.token, &self.options, Some(&collection.to_owned()))
    }

    async fn read_live(
        &self,
        keys: impl Iterator<Item = &(u32, Bytes)>,
        collection: Option<&str>,
    ) -> Result<(Vec<RecordBatch>, Answers)> {
        let targets = self.connected().await?;
        let mut by_target: Vec<Vec<Bytes>> = targets.iter().map(|_| Vec::new()).collect();
        for (db, key) in keys {
            by_target[find(&targets, *db, key)?].push(key.clone());
        }
        let naming = match collection {
            Some(collection) => self.naming_with(collection),
            None => restored(&self.token, &self.options),
        };
        let look_inside = self.options.look_inside;
        let only: Vec<String> = collection.map(str::to_owned).into_iter().collect();
        let mut records = Records::new(naming.clone(), look_inside, &only);
        let (mut batches, mut tallies) = (Vec::new(), Answers::new());
        for (target, keys) in targets.iter().zip(by_target).filter(|(_, keys)| !keys.is_empty()) {
            // A connection of its own: large keys are watched.
            let live = match &target.slots {
                None => self.client.first(target.db).await?,
                Some(_) => target.live.clone(),
            };
            let mut reader = Reader::of(live, target.db, keys, self.cancel.clone());
            while let Some(found) = reader.next(&|_| true).await? {
                let Found::Item(item) = found else { continue };
                let (prefix, rest) = naming.split(&item.key);
                let mut one = BatchBuilder::new(naming.collection(item.db, prefix));
                let key = model::record_key(rest);
                model::push(&mut one, &key, &item.part, look_inside)?;
                let id = (item.db, item.key.clone());
                tallies.entry(id).or_default().add_batch(&one.finish()?);
                if collection.is_some() {
                    records.push(&item)?;
                }
            }
        }
        records.finish()?;
        while let Some(part) = records.next() {
            if let Part::Records(batch) = part {
                batches.push(batch);
            }
        }
        Ok((batches, tallies))
    }

    /// Refuses to write over keys that are not as they were told.
    pub(crate) async fn nothing_changed(&self) -> Result<()> {
        let all: Vec<_> = {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.keys().cloned().collect()
        };
        let place = Place::aside(&self.token.id, 'n');
        let targets = self.connected().await?;
        for round in all.chunks(ROUND) {
            self.cancel.check()?;
            let mut pipes: Vec<Pipeline> = targets.iter().map(|_| Pipeline::new()).collect();
            let mut asked: Vec<Vec<&(u32, Bytes)>> = targets.iter().map(|_| Vec::new()).collect();
            for id in round {
                let number = find(&targets, id.0, &id.1)?;
                pipes[number].cmd("EXISTS").arg(&place.name(&id.1)[..]);
                asked[number].push(id);
            }
            let mut written = Vec::new();
            for ((target, pipe), ids) in targets.iter().zip(&pipes).zip(asked) {
                let replies = target.staging.every("a key cannot be read", pipe).await?;
                let staged =
                    ids.into_iter().zip(replies).filter(|(_, there)| *there == Value::Int(1));
                written.extend(staged.map(|(id, _)| id.clone()));
            }
            self.as_told(&written).await?;
        }
        Ok(())
    }

    /// Refuses where one of these keys is not as it was told. Of those that nobody asked about,
    /// nothing was decided.
    pub(crate) async fn as_told(&self, ids: &[(u32, Bytes)]) -> Result<()> {
        let told: BTreeMap<_, _> = {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            ids.iter().filter_map(|id| Some((id, answers.get(id)?.clone()))).collect()
        };
        let (_, now) = self.read_live(told.keys().copied(), None).await?;
        for (id, told) in told {
            if now.get(id).cloned().unwrap_or_default() != told {
                return Err(changed(String::from_utf8_lossy(&id.1), "the server"));
            }
        }
        Ok(())
    }
}

/// A key is not as it was when the restore decided what becomes of it.
pub(crate) fn changed(key: impl std::fmt::Display, place: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Changed, "a key was changed since the restore looked at it")
        .on(format!("{key} at {place}"))
        .advise("pause what writes to the server, then restore again")
}
