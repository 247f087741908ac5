//! What has been written of every store, and whether the sources keep their word.

use std::collections::{BTreeMap, HashMap};

use crate::{
    archive::BodyEnd,
    error::{Error, Result},
    event::{Event, Watch},
    manifest::{CollectionManifest, FieldMapping, StoreNotice},
    part::{
        BlobContent, CollectionEnd, EntryFacts, EntryKind, FileEntry, Notice, NoticeKind, Schema,
    },
    record::RecordBatch,
};

const MAX_NOTICES: usize = 1000;

/// The accounts of a backup.
pub(super) struct Ledger {
    pub(super) stores: Vec<Account>,
    pub(super) notices: Vec<StoreNotice>,
    pub(super) notice_count: u64,
    pub(super) partial: bool,
    fields: BTreeMap<(String, String), FieldMapping>,
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
        watch: Watch,
    ) -> Self {
        let account = |name: &String| Account { name: name.clone(), ..Account::default() };
        Self {
            stores: stores.iter().map(account).collect(),
            notices: Vec::new(),
            notice_count: 0,
            partial: false,
            fields,
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

    pub(super) fn schema(&mut self, store: usize, schema: &Schema) -> Result<()> {
        let account = &mut self.stores[store];
        let mut collection =
            CollectionManifest { info: schema.info.clone(), ..CollectionManifest::default() };
        let name = (account.name.clone(), schema.collection.clone());
        if let Some(fields) = self.fields.get(&name) {
            collection.info.fields = fields.clone();
        }
        match account.collections.insert(schema.collection.clone(), collection) {
            None => Ok(()),
            Some(_) => Err(broken("a source gave a collection two schemas", &name.0, &name.1)),
        }
    }

    pub(super) fn records(
        &mut self,
        store: usize,
        partition: &str,
        batch: &RecordBatch,
    ) -> Result<()> {
        let name = batch.collection();
        self.stores[store].came(partition, name, batch.len() as u64)?.tally.add_batch(batch);
        Ok(())
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
        self.stores[store].came(partition, root, 1)?.tally.add_line(&line);
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
        if let Some(known) = account.collections.get_mut(collection) {
            for (name, value) in end.statistics {
                *known.statistics.entry(name).or_default() += value;
            }
        }
        Ok(())
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
    fn came(
        &mut self,
        partition: &str,
        collection: &str,
        count: u64,
    ) -> Result<&mut CollectionManifest> {
        let Some(known) = self.collections.get_mut(collection) else {
            let what = "a source gave records before their schema";
            return Err(broken(what, &self.name, collection));
        };
        let key = (partition.to_owned(), collection.to_owned());
        let running = self.open.entry(key).or_default();
        if running.ended {
            let what = "a source gave more of a collection that it had ended";
            return Err(broken(what, &self.name, collection));
        }
        running.count += count;
        Ok(known)
    }
}

fn broken(what: &str, store: &str, collection: &str) -> Error {
    Error::adapter(what).on(collection).on(store)
}
