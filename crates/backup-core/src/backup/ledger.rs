//! What has been written of every store, and whether the sources keep their word.

use std::collections::{BTreeMap, HashMap};

use crate::{
    archive::BodyEnd,
    error::{Error, Result},
    event::{Event, Watch},
    manifest::{
        CollectionManifest, FieldMapping, ReferenceCount, ReferenceEnd, StoreManifest, StoreNotice,
    },
    part::{
        BlobContent, CollectionEnd, EntryFacts, EntryKind, FileEntry, Notice, NoticeKind, Schema,
    },
    record::RecordBatch,
    references::{Collector, Reference},
    select::{Filter, Selection},
};

const MAX_NOTICES: usize = 1000;

/// The accounts of a backup.
pub(super) struct Ledger {
    pub(super) stores: Vec<Account>,
    pub(super) notices: Vec<StoreNotice>,
    pub(super) notice_count: u64,
    pub(super) partial: bool,
    fields: BTreeMap<(String, String), FieldMapping>,
    selection: Selection,
    references: Collector,
    watch: Watch,
}

/// The account of one store.
#[derive(Default)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) collections: BTreeMap<String, CollectionManifest>,
    pub(super) blobs: BTreeMap<String, BlobContent>,
    // For every partition and collection under way: how many came.
    open: HashMap<(String, String), Running>,
    filters: HashMap<String, Filter>,
    // What a rule cannot look into.
    refused: HashMap<String, Error>,
}

#[derive(Default)]
struct Running {
    count: u64,
    ended: bool,
}

impl Ledger {
    pub(super) fn new(
        stores: &[String],
        fields: BTreeMap<(String, String), FieldMapping>,
        selection: Selection,
        references: &[Reference],
        watch: Watch,
    ) -> Self {
        let account = |name: &String| Account { name: name.clone(), ..Account::default() };
        Self {
            stores: stores.iter().map(account).collect(),
            notices: Vec::new(),
            notice_count: 0,
            partial: false,
            fields,
            selection,
            references: Collector::new(references, Reference::MAX_VALUES, |end| {
                (end.store.clone(), end.collection.clone())
            }),
            watch,
        }
    }

    /// Records a notice; an empty `store` means the backup as a whole.
    pub(super) fn notice(&mut self, store: &str, notice: Notice) {
        self.partial |= notice.kind.makes_partial();
        self.notice_count += 1;
        let notice = StoreNotice { store: store.to_owned(), notice };
        if self.notices.len() < MAX_NOTICES {
            self.notices.push(notice.clone());
        }
        self.watch.tell(Event::Notice(notice));
    }

    /// Opens the account of a collection; whether any of it is taken.
    pub(super) fn schema(&mut self, store: usize, schema: &Schema) -> Result<bool> {
        let account = &mut self.stores[store];
        let mut collection =
            CollectionManifest { info: schema.info.clone(), ..CollectionManifest::default() };
        let name = (account.name.clone(), schema.collection.clone());
        if let Some(fields) = self.fields.get(&name) {
            collection.info.fields = fields.clone();
        }
        let fields = &collection.info.fields;
        let filter = match self.selection.filter(&name.0, &name.1, fields) {
            Ok(filter) => filter,
            // Refused where there is something to look into: its first record.
            Err(refusal) => {
                account.refused.insert(schema.collection.clone(), refusal);
                Selection::new().filter(&name.0, &name.1, fields)?
            }
        };
        collection.selected_from = (!filter.takes_everything()).then_some(0);
        let taken = !filter.takes_nothing();
        if taken {
            account.collections.insert(schema.collection.clone(), collection);
        }
        match account.filters.insert(schema.collection.clone(), filter) {
            None => Ok(taken),
            Some(_) => Err(broken("a source gave a collection two schemas", &name.0, &name.1)),
        }
    }

    /// Counts what came; the records of it that are taken, if there are any.
    pub(super) fn records(
        &mut self,
        store: usize,
        partition: &str,
        batch: RecordBatch,
    ) -> Result<Option<RecordBatch>> {
        let (name, len) = (batch.collection(), batch.len() as u64);
        let account = &mut self.stores[store];
        account.came(partition, name, len)?;
        if len > 0
            && let Some(refusal) = account.refused.remove(name)
        {
            return Err(refusal);
        }
        let Some(known) = account.collections.get_mut(name) else { return Ok(None) };
        let taken = match account.filters.get(name) {
            Some(filter) if !filter.takes_everything() => {
                *known.selected_from.get_or_insert(0) += len;
                let taken = filter.batch(&batch)?;
                if taken.is_empty() {
                    return Ok(None);
                }
                taken
            }
            _ => batch,
        };
        known.tally.add_batch(&taken);
        self.references.batch(&account.name, &taken);
        Ok(Some(taken))
    }

    /// Whether an entry or, without a root, a blob is taken. One that is not is counted here.
    pub(super) fn takes(
        &mut self,
        store: usize,
        partition: &str,
        root: Option<&str>,
    ) -> Result<bool> {
        let account = &mut self.stores[store];
        let taken = self.selection.takes_unreadable(&account.name, root)?;
        if let Some(root) = root
            && !taken
        {
            account.came(partition, root, 1)?;
        }
        Ok(taken)
    }

    pub(super) fn entry(
        &mut self,
        store: usize,
        partition: &str,
        entry: &FileEntry,
        end: &BodyEnd,
    ) -> Result<()> {
        let FileEntry { root, path, mode, modified, kind } = entry;
        let facts = match kind {
            EntryKind::File { len, .. } => EntryFacts::File { len: *len, sha256: &end.sha256 },
            EntryKind::Directory => EntryFacts::Directory,
            EntryKind::Symlink { target } => EntryFacts::Symlink { target },
        };
        // The archive keeps permission bits only.
        let line = FileEntry::line(path, mode & 0o777, *modified, facts);
        let account = &mut self.stores[store];
        account.came(partition, root, 1)?;
        if let Some(known) = account.collections.get_mut(root) {
            known.tally.add_line(&line);
            self.references.entry(&account.name, root, path);
        }
        self.length(store, root, &path.to_string(), end);
        Ok(())
    }

    pub(super) fn blob(&mut self, store: usize, name: &str, blob: BlobContent, end: &BodyEnd) {
        self.stores[store].blobs.insert(name.to_owned(), blob);
        self.length(store, "", name, end);
    }

    // A body that was not as long as was told.
    fn length(&mut self, store: usize, collection: &str, subject: &str, end: &BodyEnd) {
        let (kind, detail) = if end.padded > 0 {
            let all = end.taken + end.padded;
            let what = format!("{} of {all} bytes could be read; the rest is zeros", end.taken);
            (NoticeKind::Shrank, what)
        } else if end.cut > 0 {
            (NoticeKind::Grew, format!("only the first {} bytes were taken", end.taken))
        } else {
            return;
        };
        let notice =
            Notice { kind, collection: collection.into(), subject: subject.into(), detail };
        let store = self.stores[store].name.clone();
        self.notice(&store, notice);
    }

    pub(super) fn end(&mut self, store: usize, partition: &str, end: CollectionEnd) -> Result<()> {
        let account = &mut self.stores[store];
        account.came(partition, &end.collection, 0)?;
        let key = (partition.to_owned(), end.collection);
        let Some(running) = account.open.get_mut(&key) else { return Ok(()) };
        running.ended = true;
        let (came, collection) = (running.count, &key.1);
        if let Some(count) = end.count
            && count != came
        {
            let what = format!("a source says that it gave {count} records, and {came} came");
            return Err(broken(&what, &account.name, collection));
        }
        // Figures of the whole would be wrong for a part.
        if let Some(known) = account.collections.get_mut(collection)
            && known.selected_from.is_none()
        {
            for (name, value) in end.statistics {
                *known.statistics.entry(name).or_default() += value;
            }
        }
        Ok(())
    }

    /// Everything was read: what came of the references, with a notice for each that could not be
    /// counted. `manifests` are in the order of the accounts.
    pub(super) fn references(&mut self, manifests: &[StoreManifest]) -> Vec<ReferenceCount> {
        let (stores, selection) = (&self.stores, &self.selection);
        self.references.rule_out(|ReferenceEnd { store, collection, .. }| {
            let Some(place) = stores.iter().position(|account| account.name == *store) else {
                return Some("the store is not backed up".into());
            };
            let Account { collections, filters, blobs, .. } = &stores[place];
            let chosen = selection.takes(store, collection) && !filters.contains_key(collection);
            let why = match manifests.get(place) {
                _ if collections.contains_key(collection) => return None,
                Some(manifest) if manifest.missing => "the store could not be reached",
                _ if !chosen => "it is not selected",
                _ if !blobs.is_empty() => {
                    "the store is backed up in its native form, which is not looked into"
                }
                // There is no such collection: no value points there or from there.
                _ => return None,
            };
            Some(why.into())
        });
        let counts = self.references.counts();
        for count in counts.iter().filter(|count| count.unchecked.is_some()) {
            self.notice("", super::remark(format!("the reference {count}")));
        }
        counts
    }

    /// A partition was read to its end: so must be its collections.
    pub(super) fn partition_end(&mut self, store: usize, partition: &str) -> Result<()> {
        let account = &mut self.stores[store];
        let unended =
            |((of, _), running): &(&(String, String), &Running)| of == partition && !running.ended;
        if let Some(((_, collection), _)) = account.open.iter().find(unended) {
            let what = "a source stopped in the middle of a collection";
            return Err(broken(what, &account.name, collection));
        }
        account.open.retain(|(of, _), _| of != partition);
        Ok(())
    }
}

impl Account {
    fn came(&mut self, partition: &str, collection: &str, count: u64) -> Result<()> {
        if !self.filters.contains_key(collection) {
            let what = "a source gave records before their schema";
            return Err(broken(what, &self.name, collection));
        }
        let key = (partition.to_owned(), collection.to_owned());
        let running = self.open.entry(key).or_default();
        if running.ended {
            let what = "a source gave more of a collection that it had ended";
            return Err(broken(what, &self.name, collection));
        }
        running.count += count;
        Ok(())
    }
}

fn broken(what: &str, store: &str, collection: &str) -> Error {
    Error::adapter(what).on(collection).on(store)
}
