//! From old to new, and back.
//!
//! Collections that are replaced or removed are first copied aside, and the copies counted.
//! Only then a note says that the switch has begun, so a switch that broke off is done again,
//! or taken back, from the copies: both may be repeated.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, ErrorKind, Result, record::Tally};
use serde_json::Value;

use super::{
    client::{point, unpoint},
    scroll::Scroll,
    stage::{Session, is_ours},
    token::{Note, Target, Was},
};
use crate::schema::Document;

/// How often a safety copy is taken again that does not have as many points as its original.
const COPIES: usize = 3;
/// Longest name of an alias.
const MAX_ALIAS: usize = 255;

impl Session {
    pub(super) async fn switch(&self) -> Result<()> {
        let notes = self.read_notes().await?;
        let notes = notes.ok_or_else(|| Error::out_of_order("commit", "nothing is staged"))?;
        if notes.contains(&Note::Undoing) || notes.contains(&Note::Undone) {
            return Err(Error::out_of_order("commit", "it was undone"));
        }
        if notes.contains(&Note::Committed) {
            return Ok(());
        }
        if !notes.contains(&Note::Committing) {
            self.seal().await?;
            self.still_as_planned().await?;
            self.keep_old().await?;
            self.set_notes(&[Note::Sealed, Note::Committing], Vec::new()).await?;
        }
        for target in &self.token.targets {
            self.bring_in(target).await.map_err(|error| error.on(&target.name))?;
        }
        for removed in &self.token.removed {
            self.delete_live(&removed.name).await?;
        }
        let wanted = self.wanted_aliases().await?;
        let actions = self.alias_actions(&wanted).await?;
        self.set_notes(&[Note::Sealed, Note::Committed], actions).await
    }

    pub(super) async fn switch_back(&self) -> Result<()> {
        let notes = self.read_notes().await?;
        let notes = notes.ok_or_else(|| Error::out_of_order("undo", "nothing was committed"))?;
        if notes.contains(&Note::Undone) {
            return Ok(());
        }
        let begun = [Note::Committing, Note::Committed, Note::Undoing];
        if begun.iter().all(|note| !notes.contains(note)) {
            return Err(Error::out_of_order("undo", "it was not committed"));
        }
        self.set_notes(&[Note::Sealed, Note::Undoing], Vec::new()).await?;
        let back = self.put_back().await;
        back.map_err(|error| {
            let olds: Vec<_> = self.token.own().into_iter().map(str::to_owned).collect();
            let what = "what was replaced cannot be put back";
            Error::new(ErrorKind::RepairNeeded, what)
                .on(format!("on the server, in {}", olds.join(", ")))
                .because(error)
                .advise("when the server is well again, call resume")
        })
    }

    async fn bring_in(&self, target: &Target) -> Result<()> {
        if self.token.adds_to(target) {
            self.add(&target.shadow, target).await
        } else if self.token.repoints(target) {
            Ok(())
        } else {
            self.replace(&target.shadow, &target.name).await
        }
    }

    async fn put_back(&self) -> Result<()> {
        for target in &self.token.targets {
            match target.was {
                _ if self.token.adds_to(target) => self.take_out(target).await?,
                Was::Collection => self.replace(&target.old, &target.name).await?,
                Was::Free => self.delete_live(&target.name).await?,
                Was::Alias(_) => {}
            }
        }
        for removed in &self.token.removed {
            self.replace(&removed.old, &removed.name).await?;
        }
        let actions = self.alias_actions(&self.token.aliases).await?;
        self.set_notes(&[Note::Sealed, Note::Undone], actions).await
    }

    pub(super) async fn end(&self) -> Result<()> {
        let Some(notes) = self.read_notes().await? else { return Ok(()) };
        self.sweep().await?;
        let committed = notes.contains(&Note::Committed) && !notes.contains(&Note::Undone);
        if !committed && !notes.contains(&Note::Undone) {
            return Err(Error::out_of_order("finish", "it was not committed"));
        }
        let there = self.client.collections().await?;
        let aliases = self.client.aliases().await?;
        for target in &self.token.targets {
            let Was::Alias(to) = &target.was else { continue };
            let left = self.token.repoints(target) && !aliases.values().any(|other| other == to);
            if committed && left && there.contains(to) {
                self.client.drop_collection(to).await?;
            }
        }
        // What remembers the archive's aliases, of a collection that stays.
        let remember = [self.token.wish(""), self.token.native()];
        let remembered = aliases.keys().filter(|a| remember.iter().any(|r| a.starts_with(r)));
        self.client.change_aliases(remembered.map(|alias| unpoint(alias)).collect()).await?;
        // What an alias points at now has no other name.
        let targets = self.token.targets.iter().filter(|target| self.token.repoints(target));
        let live: Vec<_> = targets.filter(|_| committed).map(|t| t.shadow.as_str()).collect();
        self.drop_own(|name| !live.contains(&name)).await
    }

    pub(super) async fn give_up(&self) -> Result<()> {
        let Some(notes) = self.read_notes().await? else { return Ok(()) };
        if notes.contains(&Note::Committed) || notes.contains(&Note::Undone) {
            return Err(Error::out_of_order("abort", "it was committed"));
        }
        if notes.contains(&Note::Committing) || notes.contains(&Note::Undoing) {
            self.switch_back().await?;
        }
        self.sweep().await?;
        self.drop_own(|_| true).await
    }

    /// Removes a collection that has a copy, and first what recovering it left beside it, which
    /// would stay on the server's disk. The application's own snapshots stay.
    async fn delete_live(&self, name: &str) -> Result<()> {
        self.client.snapshots(name).sweep(&self.token.anchor).await?;
        self.client.rest.delete(&["collections", name]).long().find().await.map(drop)
    }

    /// Makes one collection a copy of another.
    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let document = self.client.settings(from).await?;
        let whole = self.client.is_whole_here(from).await?;
        if document.is_keyed() || !whole || self.client.has_peers().await? {
            // A snapshot brings no shard keys: it fills the shards that have the same numbers. And it
            // has, and fills, only those that lie on the server.
            if !self.client.collections().await?.iter().any(|name| name == to) {
                let request = document.create_request();
                self.client.create_collection(to, request, &document.shard_keys).await?;
                self.create_indexes(to, &document.payload_indexes).await?;
            }
            let whole = whole && self.client.is_whole_here(to).await?;
            if !whole || self.client.shards(from).await? != self.client.shards(to).await? {
                return self.copy_points(from, to, &document).await;
            }
        }
        let snapshots = self.client.snapshots(from);
        let snapshot = snapshots.create().await?;
        // One of a live collection is noted, so that whoever ends the restore can remove it.
        let note = self.token.snapshot(&snapshot.name);
        let noted = !is_ours(from) && note.len() <= MAX_ALIAS;
        let copied = async {
            if noted {
                self.client.change_aliases(vec![point(&note, &self.token.anchor)]).await?;
            }
            let to = self.client.snapshots(to);
            to.take_over(&snapshots, &snapshot, &self.token.anchor).await
        };
        let copied = copied.await;
        let removed = snapshots.delete(&snapshot.name).await;
        copied.and(removed)?;
        if noted {
            self.client.change_aliases(vec![unpoint(&note)]).await?;
        }
        Ok(())
    }

    /// Copies points one by one into an empty collection with the same shard keys, and compares.
    async fn copy_points(&self, from: &str, to: &str, document: &Document) -> Result<()> {
        let mut sent = Tally::new();
        let mut points = Scroll::start(&self.client, from, from, document)?;
        while let Some(batch) = points.next().await? {
            sent.add_batch(&batch);
            self.send(to, document, &batch).await?;
        }
        if Scroll::start(&self.client, to, from, document)?.tally().await? == sent {
            return Ok(());
        }
        let what = "the copy of a collection is not equal to it";
        Err(Error::new(ErrorKind::Mismatch, what)
            .on(to)
            .advise("look into the log of the Qdrant server"))
    }

    /// Removes what a switch that broke off left beside live collections.
    async fn sweep(&self) -> Result<()> {
        let prefix = self.token.snapshot("");
        let aliases = self.client.aliases().await?;
        let noted: Vec<_> = aliases.keys().filter_map(|a| a.strip_prefix(&prefix)).collect();
        let targets = self.token.targets.iter().map(|target| &target.name);
        for name in targets.chain(self.token.removed.iter().map(|removed| &removed.name)) {
            let snapshots = self.client.snapshots(name);
            snapshots.sweep(&self.token.anchor).await?;
            for snapshot in &noted {
                snapshots.delete(snapshot).await?;
            }
        }
        Ok(())
    }

    /// Refuses to switch a server that is not as it was when the restore was planned.
    async fn still_as_planned(&self) -> Result<()> {
        let collections = self.client.collections().await?;
        let mut aliases = self.client.aliases().await?;
        aliases.retain(|alias, _| !is_ours(alias));
        let changed = |name: &str| {
            let what = "the server's collections or aliases were changed since the restore began";
            Err(Error::new(ErrorKind::Busy, what).on(name).advise("plan the restore again"))
        };
        for target in &self.token.targets {
            let is = match aliases.get(&target.name) {
                Some(to) => Was::Alias(to.clone()),
                None if collections.contains(&target.name) => Was::Collection,
                None => Was::Free,
            };
            if is != target.was {
                return changed(&target.name);
            }
        }
        for wish in self.wanted_aliases().await?.keys() {
            if collections.contains(wish) {
                let what = "an alias of the archive is the name of a collection on the server";
                return Err(Error::new(ErrorKind::AlreadyExists, what).on(wish));
            }
            if aliases.get(wish) != self.token.aliases.get(wish) {
                return changed(wish);
            }
        }
        Ok(())
    }

    /// Copies aside what is to be replaced or removed.
    async fn keep_old(&self) -> Result<()> {
        for target in self.token.targets.iter().filter(|target| self.token.adds_to(target)) {
            self.keep_touched(target).await.map_err(|error| error.on(&target.name))?;
        }
        let whole = |t: &&Target| t.was == Was::Collection && !self.token.adds_to(t);
        let replaced = self.token.targets.iter().filter(whole);
        let replaced = replaced.map(|target| (&target.name, &target.old));
        let removed = self.token.removed.iter().map(|removed| (&removed.name, &removed.old));
        for (name, old) in replaced.chain(removed) {
            self.keep(name, old).await.map_err(|error| error.on(name))?;
        }
        Ok(())
    }

    async fn keep(&self, name: &str, old: &str) -> Result<()> {
        for _ in 0..COPIES {
            self.cancel.check()?;
            if self.client.collections().await?.iter().any(|known| known == old) {
                self.client.drop_collection(old).await?;
            }
            let before = self.client.count(name).await?;
            self.copy(name, old).await?;
            self.wait_for_green(old).await?;
            if before == self.client.count(old).await? && before == self.client.count(name).await? {
                return Ok(());
            }
        }
        let what = "a safety copy does not have as many points as the collection, which changes";
        Err(Error::new(ErrorKind::Busy, what)
            .advise("pause what writes to the collection, then restore again"))
    }

    /// Gives a name the content and settings of a collection.
    ///
    /// At one moment where the settings are equal, and the numbers of the shards where there are
    /// shard keys, and both are whole on the server. Otherwise the server refuses to, or keeps the
    /// old settings: then the name is free for the time that this takes.
    async fn replace(&self, from: &str, name: &str) -> Result<()> {
        let wanted = self.client.settings(from).await?;
        if let Some(live) = self.client.find_settings(name).await? {
            let client = &self.client;
            let whole = client.is_whole_here(from).await? && client.is_whole_here(name).await?;
            let shards =
                async || Ok::<_, Error>(client.shards(from).await? == client.shards(name).await?);
            let other = live.config != wanted.config || (wanted.is_keyed() && !shards().await?);
            if other || !whole {
                self.delete_live(name).await?;
            }
        }
        self.copy(from, name).await?;
        // Depending on its version the server takes the payload indexes with the snapshot.
        let is = self.client.settings(name).await?.payload_indexes;
        for (field, index) in &is {
            if wanted.payload_indexes.get(field) != Some(index) {
                let path = ["collections", name, "index", field];
                self.client.rest.delete(&path).query("wait", "true").long().send().await?;
            }
        }
        let missing: BTreeMap<String, Value> = wanted
            .payload_indexes
            .into_iter()
            .filter(|(field, index)| is.get(field) != Some(index))
            .collect();
        self.create_indexes(name, &missing).await?;
        self.wait_for_green(name).await
    }

    /// What aliases have to be after the switch: those of collections that the restore touches
    /// are the archive's, the others stay.
    async fn wanted_aliases(&self) -> Result<BTreeMap<String, String>> {
        let there = self.client.aliases().await?;
        let touched: BTreeSet<&str> = self.touched();
        let mut wanted: BTreeMap<String, String> = self
            .token
            .aliases
            .iter()
            .filter(|(_, to)| !touched.contains(to.as_str()))
            .map(|(alias, to)| (alias.clone(), to.clone()))
            .collect();
        let prefix = self.token.wish("");
        for target in self.token.targets.iter().filter(|target| !self.token.adds_to(target)) {
            let place = match target.was {
                Was::Alias(_) => &target.shadow,
                _ => &target.name,
            };
            let wishes = there.iter().filter(|(_, to)| **to == target.shadow);
            let wishes = wishes.filter_map(|(alias, _)| alias.strip_prefix(&prefix));
            wanted.extend(wishes.map(|alias| (alias.to_owned(), place.clone())));
            if let Was::Alias(_) = target.was {
                wanted.insert(target.name.clone(), place.clone());
            }
        }
        Ok(wanted)
    }

    /// Collections whose aliases the restore sets.
    fn touched(&self) -> BTreeSet<&str> {
        let targets = self.token.targets.iter().filter(|target| !self.token.adds_to(target));
        let targets = targets.flat_map(|target| [target.place(), &target.shadow]);
        targets.chain(self.token.removed.iter().map(|removed| removed.name.as_str())).collect()
    }

    /// What makes the aliases those that are wanted; others than those that the restore sets
    /// are left alone.
    async fn alias_actions(&self, wanted: &BTreeMap<String, String>) -> Result<Vec<Value>> {
        let is = self.client.aliases().await?;
        let touched = self.touched();
        let ours = |alias: &str| {
            let of = |map: &BTreeMap<String, String>| {
                map.get(alias).is_some_and(|to| touched.contains(to.as_str()))
            };
            !is_ours(alias) && (of(&is) || of(wanted) || of(&self.token.aliases))
        };
        let mut actions = Vec::new();
        // One that is wanted elsewhere is moved by being made again: it is never gone.
        let unwanted = is.keys().filter(|alias| ours(alias) && !wanted.contains_key(*alias));
        actions.extend(unwanted.map(|alias| unpoint(alias)));
        for (alias, to) in wanted {
            if ours(alias) && is.get(alias) != Some(to) {
                actions.push(point(alias, to));
            }
        }
        Ok(actions)
    }

    /// Changes aliases, and then the notes. A server that dies in between has done the first of
    /// them: what is left to do follows from what is there. So a note comes before the one that
    /// it replaces goes; of several the latest counts.
    pub(super) async fn set_notes(&self, notes: &[Note], mut actions: Vec<Value>) -> Result<()> {
        let there = self.client.aliases().await?;
        let is = |note: &Note| there.contains_key(&self.token.note(*note));
        let new = Note::ALL.iter().filter(|note| notes.contains(note) && !is(note));
        actions.extend(new.map(|note| point(&self.token.note(*note), &self.token.anchor)));
        let old = Note::ALL.iter().filter(|note| !notes.contains(note) && is(note));
        actions.extend(old.map(|note| unpoint(&self.token.note(*note))));
        self.client.change_aliases(actions).await
    }
}
