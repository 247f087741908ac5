//! Comparing two archives, or an archive with the live stores: by digest first, and where digests
//! differ, record by record.

mod gather;
mod merge;
mod report;
mod spill;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use futures::StreamExt as _;

use self::gather::{Gathering, Place, Sides};
pub use self::report::{
    CollectionDiff, Compared, DiffKeys, DiffReport, DiffSide, NativeDiff, StoreDiff,
};
use crate::{
    archive::{Archive, PartKind},
    backup::{
        LivePolicy, close,
        pin::{Opened, Pause, Pinning},
    },
    cancel::Cancel,
    catalog,
    error::{Error, ErrorKind, Result},
    manifest::Manifest,
    part::Content,
    restore::compare::tallies,
    source::PinRequest,
    stores::{Entry, Stores},
    worker::guarded,
};

/// What to compare, and how.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    stores: Option<Vec<String>>,
    keys: usize,
    temp_dir: PathBuf,
    avoid: Vec<PathBuf>,
    cancel: Cancel,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self {
            stores: None,
            keys: 10,
            temp_dir: std::env::temp_dir(),
            avoid: Vec::new(),
            cancel: Cancel::new(),
        }
    }
}

impl DiffOptions {
    /// Everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these stores.
    #[must_use]
    pub fn stores<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.stores = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// How many keys of each kind of difference are listed for a collection; 10 by default.
    /// All are counted.
    #[must_use]
    pub fn keys(mut self, most: usize) -> Self {
        self.keys = most;
        self
    }

    /// Where what is remembered of records waits, in a file without a name: for each its key and
    /// 72 bytes. The system's folder for temporary files by default, which may be memory.
    #[must_use]
    pub fn temp_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.temp_dir = dir.into();
        self
    }

    /// Paths that are not read in the live stores, beside the archive and the catalog that it
    /// lies in; those that a backup was told to [avoid](crate::BackupOptions::avoid).
    #[must_use]
    pub fn avoid(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.avoid.extend(paths);
        self
    }

    /// Stops the comparison when asked to.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    fn takes(&self, store: &str) -> bool {
        self.stores.as_ref().is_none_or(|names| names.iter().any(|name| name == store))
    }
}

impl Archive {
    /// Compares this archive, the left side, with another one, the right side.
    ///
    /// Collections and native snapshots whose counts and digests in the manifests agree are
    /// equal, and their records are not read. Of those that differ, both sides are read and
    /// compared record by record, vector by vector, files by their paths. Native snapshots
    /// cannot be looked into. Whether the archives are undamaged is for
    /// [`verify`](Self::verify) to say.
    ///
    /// Memory is bounded, whatever the size: about 20 MB, what reading an archive takes, and
    /// the keys of one record in 256 with 250 bytes each. The rest waits in
    /// [a file](DiffOptions::temp_dir).
    ///
    /// ```
    /// use backup_core::{BackupOptions, DiffOptions, MemoryStore, Stores, archive::Archive};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (one, two) = (folder.path().join("1.tar.gz"), folder.path().join("2.tar.gz"));
    /// # futures::executor::block_on(async {
    /// let state = MemoryStore::new();
    /// let stores = Stores::new("docs", "1.0.0").with("state", state.clone());
    /// state.insert("notes", 1, "old".into())?;
    /// stores.backup_to_file(&one, &BackupOptions::new()).await?;
    /// state.insert("notes", 1, "new".into())?;
    /// state.insert("notes", 2, "more".into())?;
    /// stores.backup_to_file(&two, &BackupOptions::new()).await?;
    ///
    /// let (one, two) = (Archive::open(&one)?, Archive::open(&two)?);
    /// let report = one.diff(&two, &DiffOptions::new()).await?;
    /// let notes = &report.stores["state"].collections["notes"];
    /// assert_eq!(notes.changed.first, ["1"]);
    /// assert_eq!(notes.only_right.first, ["2"]);
    /// # Ok::<(), backup_core::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Damage; a store that neither side has; no room for the temporary file.
    pub async fn diff(&self, other: &Archive, options: &DiffOptions) -> Result<DiffReport> {
        let mut run = Run::new(options)?;
        run.of_archive(0, self);
        run.of_archive(1, other);
        run.finish([Some(self), Some(other)]).await
    }
}

impl Stores {
    /// Compares an archive, the left side, with what the stores hold now, the right side.
    ///
    /// All of every store is read once, as a backup reads it; the application is paused while
    /// moments are fixed, if it can be. The rest is as in [`Archive::diff`]. A store that the
    /// archive holds in another form, native there and as records here, is different.
    ///
    /// # Errors
    /// As there; a store that cannot be read and is not [optional](Self::optional).
    pub async fn diff(&self, archive: &Archive, options: &DiffOptions) -> Result<DiffReport> {
        let mut run = Run::new(options)?;
        run.of_archive(0, archive);
        run.of_stores(self, archive).await?;
        run.finish([Some(archive), None]).await
    }
}

/// What one side says of its content, before its records are looked at.
type Outline = BTreeMap<String, Content>;

struct Run<'a> {
    options: &'a DiffOptions,
    sides: Sides,
    outlines: [Outline; 2],
    // Stores that may be asked for.
    known: BTreeSet<String>,
    warnings: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(options: &'a DiffOptions) -> Result<Self> {
        let sides = gather::sides(&options.temp_dir)?;
        Ok(Self {
            options,
            sides,
            outlines: Default::default(),
            known: BTreeSet::new(),
            warnings: Vec::new(),
        })
    }

    fn of_archive(&mut self, side: usize, archive: &Archive) {
        let Manifest { stores, .. } = archive.manifest();
        self.known.extend(stores.keys().cloned());
        for (name, store) in stores.iter().filter(|(name, _)| self.options.takes(name)) {
            if store.missing {
                let id = archive.manifest().id;
                self.warnings.push(format!("{name} could not be reached for backup {id}"));
            } else {
                self.outlines[side].insert(name.clone(), store.content());
            }
        }
    }

    async fn of_stores(&mut self, stores: &Stores, archive: &Archive) -> Result<()> {
        let chosen = stores.chosen(None)?;
        self.known.extend(stores.names().map(str::to_owned));
        let chosen: Vec<_> = chosen.into_iter().filter(|e| self.options.takes(&e.name)).collect();
        let pinning = Pinning {
            pauser: &stores.pauser,
            policy: LivePolicy::AcceptFuzzy,
            clock: &*stores.clock,
            watch: &stores.pauser.watch,
        };
        let avoid = self.avoid(archive);
        let requests = chosen
            .into_iter()
            .map(|entry| (Arc::clone(&entry), self.request(stores, &entry, &avoid)));
        let mut opened = Vec::new();
        let read = self.read(&pinning, requests.collect(), &mut opened).await;
        let closed = close(&mut opened).await;
        read?;
        for error in closed.into_iter().flatten().filter_map(Result::err) {
            self.warnings.push(format!("a session could not be closed: {error}"));
        }
        let content = |sides: &mut [gather::Gathered; 2]| Ok(sides[1].content.clone());
        for (name, content) in self.sides.call(content).await? {
            self.outlines[1].insert(name, content);
        }
        Ok(())
    }

    fn avoid(&self, archive: &Archive) -> Vec<PathBuf> {
        let path = archive.path();
        let catalog = path.and_then(|p| p.parent()).filter(|dir| catalog::is_catalog(dir));
        let more = path.into_iter().chain(catalog).map(Into::into);
        self.options.avoid.iter().cloned().chain(more).collect()
    }

    fn request(&self, stores: &Stores, entry: &Entry, avoid: &[PathBuf]) -> PinRequest {
        let mut request = PinRequest::new();
        request.avoid = stores.owned_by_others(&entry.name);
        let off_limits = avoid.iter().flat_map(|path| catalog::off_limits(path, &*entry.source));
        request.avoid.extend(off_limits);
        request.cancel = self.options.cancel.clone();
        request
    }

    async fn read(
        &mut self,
        pinning: &Pinning<'_>,
        requests: Vec<(Arc<Entry>, PinRequest)>,
        opened: &mut Vec<Opened>,
    ) -> Result<()> {
        let mut notices = Vec::new();
        // What may change is read as it changes: nobody waits for a comparison.
        if let Pause::Lasts(lease) = pinning.run(requests, opened, &mut notices).await? {
            lease.release().await;
        }
        pinning.partitions(opened, &mut notices).await?;
        self.warnings
            .extend(notices.into_iter().map(|(store, n)| format!("{store}: {}", n.detail)));
        for one in opened {
            let Some(reading) = &one.reading else { continue };
            let name = &one.entry.name;
            self.outlines[1].insert(name.clone(), Content::new());
            if reading.live {
                self.warnings.push(format!("{name} was read while it could change"));
            }
            let cancel = &self.options.cancel;
            let warnings = &mut self.warnings;
            let mut to = Gathering { sides: &self.sides, side: 1, cancel, warnings };
            for partition in &reading.partitions {
                while let Some(part) = guarded(name, reading.session.next(partition)).await? {
                    cancel.check()?;
                    to.part(name, part).await?;
                }
            }
        }
        Ok(())
    }

    // Reads what has to be read of the archives, and puts both sides together. The live side
    // was read already.
    async fn finish(mut self, archives: [Option<&Archive>; 2]) -> Result<DiffReport> {
        self.check_names()?;
        let outlines = std::mem::take(&mut self.outlines);
        let [left, right] = &outlines;
        let both: BTreeSet<Place> = places(left).intersection(&places(right)).cloned().collect();
        let differs = |place: &&Place| {
            let tally = |of: &'_ Outline| of[&place.0].collections[&place.1].clone();
            tallies(&tally(left), &tally(right)).is_err()
        };
        let differing: BTreeSet<Place> = both.iter().filter(differs).cloned().collect();
        for (side, archive) in archives.iter().enumerate() {
            if let Some(archive) = archive {
                self.archive(side, archive, &both, &differing).await?;
            }
        }
        let (most, cancel) = (self.options.keys, self.options.cancel.clone());
        let wanted = differing.clone();
        let merged = self.sides.call(move |sides| {
            let changes = merge::merge(sides, &wanted, most, &cancel)?;
            let [left, right] = sides;
            let same = |place: &Place| left.schemas.get(place) == right.schemas.get(place);
            let schemas: BTreeSet<Place> = both.into_iter().filter(|p| !same(p)).collect();
            Ok((changes, schemas))
        });
        let (mut changes, schemas) = merged.await?;
        let mut stores = BTreeMap::new();
        for name in left.keys().chain(right.keys()) {
            stores.entry(name.clone()).or_insert_with(|| {
                let (left, right) = (left.get(name), right.get(name));
                let mut store = outline(left, right);
                for (collection, one) in &mut store.collections {
                    let place = (name.clone(), collection.clone());
                    one.schema = schemas.contains(&place);
                    if let Some([left, right, changed, vectors]) = changes.remove(&place) {
                        (one.only_left, one.only_right) = (left, right);
                        (one.changed, one.vectors) = (changed, vectors);
                    }
                }
                store
            });
        }
        let [left, right] = archives.map(|archive| Compared {
            archive: archive.map(|archive| archive.manifest().id),
            path: archive.and_then(|archive| archive.path()).map(Into::into),
        });
        Ok(DiffReport { left, right, stores, warnings: self.warnings })
    }

    fn check_names(&self) -> Result<()> {
        match self.options.stores.iter().flatten().find(|name| !self.known.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                Err(Error::new(ErrorKind::NotFound, "neither side has such a store").on(name))
            }
        }
    }

    async fn archive(
        &mut self,
        side: usize,
        archive: &Archive,
        both: &BTreeSet<Place>,
        differing: &BTreeSet<Place>,
    ) -> Result<()> {
        let (both, differing) = (both.clone(), differing.clone());
        let has = |places: &BTreeSet<Place>, store: &str, collection: &str| {
            places.contains(&(store.to_owned(), collection.to_owned()))
        };
        let wanted = move |part: &crate::archive::PartEntry| match &part.kind {
            PartKind::Schema { store, collection } => has(&both, store, collection),
            PartKind::Records { store, collection, .. }
            | PartKind::Vector { store, collection, .. } => has(&differing, store, collection),
            PartKind::Entry { store, root, .. } => has(&differing, store, root),
            _ => false,
        };
        let cancel = &self.options.cancel;
        let mut parts = archive.stream_parts(wanted, cancel)?;
        let warnings = &mut self.warnings;
        let mut to = Gathering { sides: &self.sides, side, cancel, warnings };
        while let Some(next) = parts.next().await {
            cancel.check()?;
            let (store, part) = next?;
            to.part(&store, part).await?;
        }
        Ok(())
    }
}

fn places(outline: &Outline) -> BTreeSet<Place> {
    let of = |(store, content): (&String, &Content)| {
        let names = content.collections.keys();
        names.map(|name| (store.clone(), name.clone())).collect::<Vec<_>>()
    };
    outline.iter().flat_map(of).collect()
}

// What is there on which side, and the snapshots.
fn outline(left: Option<&Content>, right: Option<&Content>) -> StoreDiff {
    let mut store = StoreDiff { only: only(left, right), ..StoreDiff::default() };
    let nothing = Content::new();
    let (left, right) = (left.unwrap_or(&nothing), right.unwrap_or(&nothing));
    for name in left.collections.keys().chain(right.collections.keys()) {
        let (left, right) = (left.collections.get(name), right.collections.get(name));
        let records = |of: Option<&crate::record::Tally>| of.map_or(0, |tally| tally.records);
        let one = CollectionDiff {
            only: only(left, right),
            left: records(left),
            right: records(right),
            ..CollectionDiff::default()
        };
        store.collections.insert(name.clone(), one);
    }
    for name in left.blobs.keys().chain(right.blobs.keys()) {
        let (left, right) = (left.blobs.get(name), right.blobs.get(name));
        let facts = |blob: &crate::part::BlobContent| (blob.len, blob.digest);
        let changed = left.zip(right).is_some_and(|(l, r)| facts(l) != facts(r));
        store.native.insert(name.clone(), NativeDiff { only: only(left, right), changed });
    }
    store
}

fn only<T>(left: Option<T>, right: Option<T>) -> Option<DiffSide> {
    match (left, right) {
        (Some(_), None) => Some(DiffSide::Left),
        (None, Some(_)) => Some(DiffSide::Right),
        _ => None,
    }
}
