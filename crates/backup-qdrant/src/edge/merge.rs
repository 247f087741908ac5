//! Adding points to a shard: they are staged in a shard of their own, `records`. The commit copies
//! the live shard, adds them to the copy, and exchanges the two; so readers see the points of
//! before or all of them, and what was there is kept whole until the restore is proved.

use backup_core::{
    Cancel, Result,
    record::{Key, RecordBatch, Tally},
};

use super::{
    engine::Engine,
    files,
    lookup::{self, Ids},
    note::Note,
    scroll::Scroll,
    sink::room,
    staging::{Staging, put},
};
use crate::{answers::ids_of, schema::Document};

impl Staging {
    /// The live points of some keys; remembers the answer.
    pub(crate) fn existing(&mut self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        let ids = ids_of(keys, false)?.into_values().next().unwrap_or_default();
        let found = match &*self.shared.read() {
            None => Vec::new(),
            Some(engine) => {
                let forms = self.shared.document(engine)?.forms()?;
                lookup::points(engine, collection, &forms, &ids)?
            }
        };
        self.answers.remember(collection, None, &ids, &found)?;
        Ok(found)
    }

    /// Makes the shard that is to become live. Nobody uses the live one meanwhile.
    pub(crate) fn build(&mut self, live: Option<&Engine>, cancel: &Cancel) -> Result<()> {
        self.stage.clear_built()?;
        let (records, shard) = (self.stage.records(), self.stage.shard());
        let staged = Note::read(&records)?.and_then(|note| note.document);
        // With the engine's log: its numbers go on, or the engine would take what is added for older
        // than what is there.
        let document = match live {
            None => {
                files::copy(&records, &shard, &[], cancel)?;
                staged
            }
            Some(live) => {
                let staged = staged.unwrap_or_default();
                self.reopen()?;
                self.check_told(live, cancel)?;
                live.flush()?;
                let path = &self.shared.path;
                room(
                    self.stage.folder(),
                    files::size(path)?.saturating_add(files::size(&records)?),
                )?;
                files::copy(path, &shard, &[], cancel)?;
                self.add(&staged, &Engine::open(&shard, None)?, cancel)?;
                drop(self.engine.take());
                Note::read(path)?.and_then(|note| note.document)
            }
        };
        self.stage.write_note(&shard, document)?;
        files::sync_tree(&shard)?;
        self.stage.mark_built()
    }

    // Refuses points that are not as they were told.
    fn check_told(&self, live: &Engine, cancel: &Cancel) -> Result<()> {
        // A process that goes on with a restore was told nothing.
        let (Some(target), Some(records)) = (&self.target, &self.engine) else { return Ok(()) };
        let forms = self.shared.document(live)?.forms()?;
        let mut ids = Ids::new();
        while let Some(page) = ids.next(records)? {
            cancel.check()?;
            let found = lookup::points(live, &target.collection, &forms, &page)?;
            self.answers.check(&target.collection, None, &page, &found)?;
        }
        Ok(())
    }

    fn add(&self, staged: &Document, shard: &Engine, cancel: &Cancel) -> Result<()> {
        let Some(records) = &self.engine else { return Ok(()) };
        let forms = staged.forms()?;
        let mut points = Scroll::new("", &forms);
        while let Some(batch) = points.next(records, &[])? {
            put(shard, &batch, &forms, cancel)?;
        }
        shard.flush()
    }

    /// The tally of the live points whose ids are staged.
    pub(crate) fn tally_merged(&mut self, name: &str, cancel: &Cancel) -> Result<Option<Tally>> {
        self.reopen()?;
        let live = self.shared.read();
        let (Some(live), Some(records)) = (&*live, &self.engine) else { return Ok(None) };
        let forms = self.shared.document(live)?.forms()?;
        let (mut tally, mut ids) = (Tally::new(), Ids::new());
        while let Some(page) = ids.next(records)? {
            cancel.check()?;
            let found = lookup::points(live, name, &forms, &page)?;
            found.iter().for_each(|batch| tally.add_batch(batch));
        }
        Ok(Some(tally))
    }
}
