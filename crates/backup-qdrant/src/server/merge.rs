//! Adding points to a collection that is there, and taking them out again.
//!
//! The commit first copies the live points of the ids that are staged into a collection of its
//! own, the pre-image; ids that are staged and not in it were free. Then it writes the staged
//! points over them. Both ways may be repeated.

use std::collections::HashSet;

use backup_core::{
    Error, ErrorKind, Result,
    record::{Key, RecordBatch, Tally},
};

use super::{
    grpc::{self, Of},
    lookup::{Ids, Lookup},
    place::Place,
    rest::retry,
    scroll::Scroll,
    stage::Session,
    token::Target,
};
use crate::{
    answers::{Answers, ids_of},
    points::Id,
};

impl Session {
    /// The live points of some keys; remembers the answer.
    pub(super) async fn look_up(&self, name: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        let target = self.token.targets.iter().find(|target| target.name == name);
        let place = target.map_or(name, Target::place);
        let live = self.client.find_settings(place).await?;
        // Where there is none, nothing says what the keys look like but they themselves.
        let keyed = match &live {
            Some(live) => live.is_keyed(),
            None => keys.iter().any(|key| key.scalars().is_some_and(|parts| parts.len() > 1)),
        };
        let mut all = Vec::new();
        for (shard, ids) in ids_of(keys, keyed)? {
            let found = match &live {
                Some(live) if shard.as_ref().is_none_or(|shard| live.has(shard)) => {
                    let place = Place { collection: place.to_owned(), shard: shard.clone() };
                    Lookup::new(&self.client, place, name, &live.forms()?).read(&ids).await?
                }
                _ => Vec::new(),
            };
            self.answers().remember(name, shard.as_ref(), &ids, &found)?;
            all.extend(found);
        }
        Ok(all)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Copies aside the live points that are about to be written over, and proves the copy.
    pub(super) async fn keep_touched(&self, target: &Target) -> Result<()> {
        let place = target.place();
        if self.client.collections().await?.contains(&target.old) {
            self.client.drop_collection(&target.old).await?;
        }
        let live = self.client.settings(place).await?;
        let keys = &live.shard_keys;
        self.client.create_collection(&target.old, live.scratch_request(), keys).await?;
        let forms = live.forms()?;
        let mut kept = Tally::new();
        for staged in self.staged_places(target).await? {
            let mut ids = Ids::of(&self.client, &staged);
            let mut points = Lookup::new(&self.client, staged.of(place), &target.name, &forms);
            while let Some(page) = ids.next().await? {
                let found = points.read(&page).await?;
                self.answers().check(&target.name, staged.shard.as_ref(), &page, &found)?;
                for batch in found {
                    kept.add_batch(&batch);
                    self.send(&target.old, &live, &batch).await?;
                }
            }
        }
        let copy = Scroll::start(&self.client, &target.old, &target.name, &live)?;
        if copy.tally().await? == kept {
            return Ok(());
        }
        let what = "the safety copy of points is not equal to them";
        Err(Error::new(ErrorKind::Mismatch, what).advise("look into the log of the Qdrant server"))
    }

    /// Writes all points of a collection over the live ones.
    pub(super) async fn add(&self, from: &str, target: &Target) -> Result<()> {
        let document = self.client.settings(from).await?;
        let mut points = Scroll::start(&self.client, from, &target.name, &document)?;
        while let Some(batch) = points.next().await? {
            self.send(target.place(), &document, &batch).await?;
        }
        Ok(())
    }

    /// Where points are staged.
    async fn staged_places(&self, target: &Target) -> Result<Vec<Place>> {
        Ok(Place::all(&target.shadow, &self.client.settings(&target.shadow).await?))
    }

    /// Brings the live points back to what was kept of them.
    pub(super) async fn take_out(&self, target: &Target) -> Result<()> {
        self.add(&target.old, target).await?;
        for staged in self.staged_places(target).await? {
            let (old, live) = (staged.of(&target.old), staged.of(target.place()));
            let mut ids = Ids::of(&self.client, &staged);
            while let Some(mut page) = ids.next().await? {
                let kept = || grpc::retrieve(&self.client.grpc, &old, &page, Of::Ids);
                let kept = retry(kept).await?.into_iter().map(|point| grpc::read_id(point.id));
                let kept = kept.collect::<Result<HashSet<Id>>>()?;
                page.retain(|id| !kept.contains(id));
                if !page.is_empty() {
                    retry(|| grpc::delete(&self.client.grpc, &live, &page)).await?;
                }
            }
        }
        Ok(())
    }

    /// The tally of the live points whose ids are staged.
    pub(super) async fn tally_merged(&self, target: &Target) -> Result<Tally> {
        let forms = self.client.settings(target.place()).await?.forms()?;
        let mut tally = Tally::new();
        for staged in self.staged_places(target).await? {
            let live = staged.of(target.place());
            let mut ids = Ids::of(&self.client, &staged);
            let mut points = Lookup::new(&self.client, live, &target.name, &forms);
            while let Some(page) = ids.next().await? {
                self.cancel.check()?;
                points.read(&page).await?.iter().for_each(|batch| tally.add_batch(batch));
            }
        }
        Ok(tally)
    }
}
