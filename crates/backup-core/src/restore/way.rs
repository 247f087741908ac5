//! From a part of the archive to what is written: selection, migration, rewriting, other names.

use std::collections::BTreeMap;

use super::vectors::{RestoredVector, Revision, Texts, VectorWishes};
use crate::{
    clock::ArchiveId,
    compat::VectorChanges,
    conflict::{Conflict, Resolver},
    duplicates::{DuplicateOptions, Finder},
    error::{Error, ErrorKind, Result},
    manifest::{CollectionInfo, FieldMapping, StoreManifest},
    migrate::MigrationPath,
    part::{Content, Part, Schema},
    record::{Edit, RecordBatch, Tally},
    select::{Filter, NameMap, Rewrite, Rewriter, Selection},
    sink::Sink,
};

/// What becomes of one store's parts on their way into its sink.
///
/// Only the names of collections are those of the archive; everything behind
/// [`schema`](Self::schema) and [`records`](Self::records) has those of the live store.
#[derive(Debug)]
pub(crate) struct Way {
    // The store's name in the archive.
    store: String,
    collections: BTreeMap<String, Track>,
    migration: Option<MigrationPath>,
    /// Records are added to those of the store, where the two meet by the rules of the tracks.
    pub(crate) merges: bool,
    /// What the archive says of the parts that are wanted.
    pub(crate) from_archive: Content,
}

/// What may be on both sides where a store is added to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meets {
    Records,
    Entries,
}

/// What becomes of one collection.
#[derive(Debug)]
struct Track {
    filter: Filter,
    rewriter: Rewriter,
    /// Its name in the live store, where it was given one.
    name: Option<String>,
    /// How records that say what an earlier one of the archive says are found.
    duplicates: Option<(DuplicateOptions, FieldMapping)>,
    /// Vectors that are left out or made again.
    vectors: Option<Revision>,
    /// Only where records are added.
    resolver: Option<Resolver>,
}

/// Records that say what earlier ones of the archive said, by the archive's collection.
#[derive(Debug, Default)]
pub(crate) struct Repeated {
    finders: BTreeMap<String, Finder>,
    /// How many were left out.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Repeated {
    fn leave_out(
        &mut self,
        batch: RecordBatch,
        options: &DuplicateOptions,
        fields: &FieldMapping,
    ) -> Result<RecordBatch> {
        let name = batch.collection();
        if !self.finders.contains_key(name) {
            self.finders.insert(name.to_owned(), Finder::new(options, fields)?);
        }
        let (Some(finder), mut count) = (self.finders.get_mut(name), 0) else { return Ok(batch) };
        let left = batch.edit(|record| {
            let again = record.element_json().is_none() && finder.seen(record)?.is_some();
            count += u64::from(again);
            Ok(if again { Edit::Drop } else { Edit::Keep })
        })?;
        *self.counts.entry(name.to_owned()).or_default() += count;
        Ok(left)
    }
}

/// What the user wants of a restore, as far as it concerns parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    pub(crate) selection: Selection,
    pub(crate) names: NameMap,
    pub(crate) rewrite: Rewrite,
    pub(crate) merge: bool,
    pub(crate) duplicates: Option<DuplicateOptions>,
    /// For all collections.
    pub(crate) conflict: Option<Conflict>,
    pub(crate) conflicts: BTreeMap<(String, String), Conflict>,
    pub(crate) vectors: VectorWishes,
}

impl Wishes {
    /// Whether what the store holds stays, and records are added to it.
    pub(crate) fn merges(&self, store: &str) -> bool {
        self.merge || !self.selection.takes_all_of(store) || self.names.renames_in(store)
    }
}

impl Way {
    /// `fields` is what the host says of the collections of this store.
    pub(crate) fn new(
        archive: ArchiveId,
        store: &str,
        manifest: &StoreManifest,
        wishes: &Wishes,
        migration: Option<&MigrationPath>,
        merges: Option<Meets>,
        fields: impl Fn(&str) -> Option<FieldMapping>,
    ) -> Result<Self> {
        let migration = migration.filter(|path| path.touches(store)).cloned();
        let mut collections = BTreeMap::new();
        for (name, known) in &manifest.collections {
            let archived = &known.info.fields;
            // What the host says is true of its own version, as which migrations leave a record.
            let (before, mapping) = match &migration {
                Some(path) => {
                    let Some(now) = path.collection(store, name) else { continue };
                    let moved = || path.fields(store, name, archived.clone());
                    (archived.clone(), fields(&now).unwrap_or_else(moved))
                }
                None => {
                    let own = fields(name).unwrap_or_else(|| archived.clone());
                    (own.clone(), own)
                }
            };
            let filter = match wishes.selection.filter(store, name, &before) {
                // There is nothing to look into.
                Err(_) if known.tally.records == 0 => {
                    Selection::new().filter(store, name, &before)?
                }
                other => other?,
            };
            if filter.takes_nothing() {
                continue;
            }
            let rewriter = wishes.rewrite.rewriter(store, name, &mapping)?;
            let given = wishes.names.collection(store, name);
            let rule = wishes.conflicts.get(&(store.to_owned(), name.clone()));
            let rule = rule.copied().or(wishes.conflict).unwrap_or(Conflict::Overwrite);
            let resolver = merges
                .map(|meets| match meets {
                    Meets::Entries => Ok(Resolver::of_entries(rule, archive)),
                    Meets::Records => Resolver::new(rule, &mapping, archive)
                        .map(|resolver| resolver.key_fields(known.info.key.clone())),
                })
                .transpose();
            let resolver = resolver.map_err(|e| e.on(format!("{store}/{name}")))?;
            let track = Track {
                filter,
                rewriter,
                name: (given != name).then(|| given.to_owned()),
                vectors: Revision::new(store, name, known, &wishes.vectors)?,
                resolver,
                duplicates: wishes.duplicates.clone().map(|mut options| {
                    // Where a value repeats the key, no two are equal.
                    options.ignore.extend(known.info.key.iter().cloned());
                    (options, mapping)
                }),
            };
            collections.insert(name.clone(), track);
        }
        let mut from_archive = manifest.content();
        from_archive.collections.retain(|name, _| collections.contains_key(name));
        let merges = merges.is_some();
        Ok(Self { store: store.to_owned(), collections, migration, merges, from_archive })
    }

    /// Whether every part goes into the sink as it comes out of the archive.
    pub(crate) fn is_straight(&self, manifest: &StoreManifest) -> bool {
        let straight = |track: &Track| {
            track.filter.takes_everything()
                && !track.rewriter.changes()
                && track.name.is_none()
                && track.duplicates.is_none()
                && track.vectors.is_none()
        };
        !self.merges
            && self.migration.is_none()
            && manifest.collections.keys().eq(self.collections.keys())
            && self.collections.values().all(straight)
    }

    /// Whether parts of the archive's collection are wanted.
    pub(crate) fn takes(&self, collection: &str) -> bool {
        self.collections.contains_key(collection)
    }

    /// The rule for records that exist on both sides.
    pub(crate) fn resolver(&self, collection: &str) -> Result<&Resolver> {
        let resolver = self.track(collection)?.resolver.as_ref();
        resolver.ok_or_else(|| Error::adapter("there is no rule for conflicts").on(collection))
    }

    /// As much as is known beforehand of what will be written: the names, and the figures of
    /// what is taken whole.
    pub(crate) fn forecast(&self) -> Content {
        let mut content = self.from_archive.clone();
        content.collections = content
            .collections
            .into_iter()
            .filter_map(|(name, tally)| {
                let track = self.collections.get(&name)?;
                let whole = track.filter.takes_everything() && self.migration.is_none();
                let changed = track.vectors.is_some() || track.rewriter.changes();
                let tally = if whole && !changed { tally } else { Tally::new() };
                Some((self.name(&name)?, tally))
            })
            .collect();
        content
    }

    /// What the collections are to be, by live name.
    pub(crate) fn info(&self, manifest: &StoreManifest) -> BTreeMap<String, CollectionInfo> {
        let info = self.collections.iter().filter_map(|(name, track)| {
            let mut info = manifest.collections.get(name)?.info.clone();
            if let Some(revision) = &track.vectors {
                revision.changes.apply(&mut info);
            }
            Some((self.name(name)?, info))
        });
        info.collect()
    }

    /// What becomes of vectors, by live name.
    pub(crate) fn vectors(&self) -> BTreeMap<String, VectorChanges> {
        let changes = self.revisions().map(|(name, revision)| (name, revision.changes.clone()));
        changes.collect()
    }

    /// The same, for people.
    pub(crate) fn vector_notes(&self) -> Vec<String> {
        self.revisions()
            .flat_map(|(name, revision)| revision.notes(&name).collect::<Vec<_>>())
            .collect()
    }

    fn revisions(&self) -> impl Iterator<Item = (String, &Revision)> {
        let collections = self.collections.iter();
        collections.filter_map(|(name, track)| Some((self.name(name)?, track.vectors.as_ref()?)))
    }

    /// The vectors of one of the archive's collections that are left out.
    pub(crate) fn left_out(&self, collection: &str) -> BTreeMap<String, RestoredVector> {
        let track = self.collections.get(collection);
        let left_out = track.and_then(|track| track.vectors.as_ref());
        let left_out = left_out.into_iter().flat_map(|revision| &revision.changes.left_out);
        left_out.map(|name| (name.clone(), RestoredVector::LeftOut)).collect()
    }

    /// The live name of one of the archive's collections.
    pub(crate) fn name(&self, collection: &str) -> Option<String> {
        let track = self.collections.get(collection)?;
        let migrated = || match &self.migration {
            Some(path) => path.collection(&self.store, collection),
            None => Some(collection.to_owned()),
        };
        track.name.clone().or_else(migrated)
    }

    /// The live name of a collection, by what the host calls it: as migrations leave it, before it
    /// is given another name.
    pub(crate) fn live_name(&self, collection: &str) -> Option<String> {
        let is_it = |name: &&String| match &self.migration {
            Some(path) => path.collection(&self.store, name).as_deref() == Some(collection),
            None => *name == collection,
        };
        self.name(self.collections.keys().find(is_it)?)
    }

    /// A schema on its way; `None` where the collection goes no further.
    pub(crate) fn schema(&self, schema: Schema, sink: &dyn Sink) -> Result<Option<Schema>> {
        let Track { name, vectors, .. } = self.track(&schema.collection)?;
        let migrated = match &self.migration {
            Some(path) => path.schema(&self.store, schema)?,
            None => Some(schema),
        };
        let Some(mut schema) = migrated else { return Ok(None) };
        if let Some(Revision { changes, .. }) = vectors {
            changes.apply(&mut schema.info);
            sink.revise_vectors(&mut schema.document, changes)
                .map_err(|e| e.on(&schema.collection))?;
        }
        if let Some(name) = name {
            schema.collection.clone_from(name);
        }
        Ok(Some(schema))
    }

    /// Records on their way, and the texts of which [vectors](Self::embed) are made. Work for a
    /// thread: JSON is parsed where something looks into it.
    pub(crate) fn records(
        &self,
        batch: &RecordBatch,
        repeated: &mut Repeated,
    ) -> Result<(RecordBatch, Vec<Texts>)> {
        let track = self.track(batch.collection())?;
        let mut batch = track.filter.batch(batch)?;
        if let Some(path) = &self.migration {
            batch = path.batch(&self.store, batch)?;
        }
        batch = track.rewriter.batch(&batch)?;
        if let Some((options, fields)) = &track.duplicates {
            batch = repeated.leave_out(batch, options, fields)?;
        }
        let mut texts = Vec::new();
        if let Some(revision) = &track.vectors {
            (batch, texts) = revision.prepare(batch)?;
        }
        if let Some(name) = &track.name {
            batch = batch.in_collection(name);
        }
        Ok((batch, texts))
    }

    /// The records, of `collection` in the archive, with the vectors that are made of the texts.
    pub(crate) async fn embed(
        &self,
        collection: &str,
        batch: RecordBatch,
        texts: Vec<Texts>,
    ) -> Result<(RecordBatch, BTreeMap<String, RestoredVector>)> {
        match &self.track(collection)?.vectors {
            Some(revision) => revision.embed(batch, texts).await,
            None => Ok((batch, BTreeMap::new())),
        }
    }

    /// Any other part: only names change.
    pub(crate) fn other(&self, part: Part) -> Result<Part> {
        Ok(match part {
            Part::End(mut end) => {
                if let Some(name) = self.name(&end.collection) {
                    end.collection = name;
                }
                // It counts what the archive holds.
                end.count = None;
                Part::End(end)
            }
            other => other,
        })
    }

    fn track(&self, collection: &str) -> Result<&Track> {
        self.collections.get(collection).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "the archive has a part of a collection that it does not list",
            )
            .on(format!("{}/{collection}", self.store))
        })
    }
}
