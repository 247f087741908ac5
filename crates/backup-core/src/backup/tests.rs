mod selection;

use std::{
    collections::VecDeque,
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    StreamExt as _,
    executor::block_on,
    future::{Either, select},
    stream,
};
use serde_json::json;

use super::*;
use crate::{
    Adapter, ArchiveId, Blob, ByteStream, Cancel, Capabilities, CollectionEnd, Description,
    EntryKind, EntryPath, FileEntry, FixedClock, MemoryStore, NoticeKind, Part, Partition, Pinned,
    Schema, Selection, Source, SourceSession, Step, Timestamp,
    archive::{Archive, VerifyMode},
    async_trait,
    manifest::{CollectionInfo, Consistency, FieldMapping},
    quiesce::tests::TestQuiesce,
    record::{BatchBuilder, Key, RecordBatch},
};

fn records(count: i32) -> MemoryStore {
    let store = MemoryStore::new().with_batch_records(10);
    for key in 0..count {
        store.insert_with_vector("notes", key, json!({"n": key}), "text", &[0.5]).unwrap();
    }
    store.create("empty", json!({"ddl": "x"}), CollectionInfo::default());
    store
}

fn files() -> MemoryStore {
    let store = MemoryStore::new();
    store.put_directory("root", EntryPath::new("a").unwrap());
    store.put_file("root", EntryPath::new("a/b").unwrap(), vec![7; 3 << 20]);
    store.put_symlink("root", EntryPath::new("link").unwrap(), "a/b");
    store.put_blob("native.db", vec![3; 100_000]);
    store
}

fn two() -> (Stores, MemoryStore, MemoryStore) {
    let (a, b) = (records(35).with_partitions(3), files());
    (Stores::new("docs", "1.0.0").with("state", a.clone()).with("uploads", b.clone()), a, b)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn proven(path: &Path) -> Archive {
    let archive = Archive::open(path).unwrap();
    archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap();
    archive
}

#[test]
fn two_stores_become_one_proven_archive() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    let (stores, a, b) = two();
    let mapping = FieldMapping { title: Some("/n".into()), ..FieldMapping::default() };
    let stores = stores
        .config("host", json!({"model": "m", "api_key": "k"}))
        .statistic("documents", 35)
        .metadata("release", json!("nightly"))
        .data_schema_version("7")
        .fields("state", "notes", mapping.clone());
    let options = BackupOptions::new().description("before the move").sha256_file(true);
    let report = block_on(stores.backup_with(&catalog, &options.system_info(true))).unwrap();

    assert!(report.outcome.is_complete());
    let path = report.path.unwrap();
    let archive = proven(&path);
    assert_eq!(*archive.manifest(), report.manifest);
    let manifest = report.manifest;
    assert_eq!(manifest.stores["state"].content(), a.content());
    assert_eq!(manifest.stores["uploads"].content(), b.content());
    assert_eq!(manifest.stores["state"].collections["notes"].info.fields, mapping);
    assert!(manifest.stores["state"].collections["notes"].bytes > 0);
    assert_eq!(manifest.stores["uploads"].consistency, StoreConsistency::Pinned);
    // Each shows a moment, and nobody paused the application between the two.
    assert_eq!(manifest.consistency, Consistency::PerStore);
    assert_eq!(manifest.description.as_deref(), Some("before the move"));
    assert_eq!(manifest.data_schema_version.as_deref(), Some("7"));
    assert_eq!(manifest.statistics["documents"], 35);
    assert!(manifest.system.is_some() && !manifest.partial);
    assert_eq!(archive.config("host").unwrap()["api_key"], json!("[removed]"));

    let file = std::fs::read(&path).unwrap();
    assert_eq!(report.size, file.len() as u64);
    assert_eq!(report.sha256, crate::record::Sha256Digest::of(&file));
    let name = path.file_name().unwrap().to_str().unwrap();
    let beside = std::fs::read_to_string(path.with_file_name(format!("{name}.sha256"))).unwrap();
    assert_eq!(beside, format!("{}  {name}\n", report.sha256));

    let listed = catalog.list().unwrap();
    assert_eq!((listed.backups.len(), listed.damaged.len(), listed.leftovers.len()), (1, 0, 0));
    assert_eq!(listed.backups[0].path, path);
    let id = report.id.to_string();
    for which in ["latest", &id, &id[..13], &id[28..], name, path.to_str().unwrap()] {
        assert_eq!(catalog.get(which).unwrap().manifest().id, report.id, "{which}");
    }
}

#[test]
fn the_same_data_gives_the_same_bytes_whatever_is_faster() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, slow: &'static [usize]| {
        let (stores, a, b) = two();
        let calls = AtomicUsize::new(0);
        for store in [a, b] {
            let calls = AtomicUsize::new(calls.fetch_add(100, Ordering::SeqCst));
            store.hook(move |step| {
                let call = calls.fetch_add(1, Ordering::SeqCst);
                if step == Step::Next && slow.contains(&(call % 7)) {
                    std::thread::sleep(Duration::from_millis(3));
                }
                Ok(())
            });
        }
        let clock = FixedClock {
            time: Timestamp::from_micros(1_000_000),
            id: ArchiveId::from_bytes([9; 16]),
        };
        let path = dir.path().join(name);
        let options = BackupOptions::new();
        block_on(stores.clock(clock).backup_to_file(&path, &options)).unwrap();
        std::fs::read(path).unwrap()
    };
    let plain = run("a", &[]);
    assert_eq!(plain, run("b", &[1, 2]));
    assert_eq!(plain, run("c", &[0, 3, 5]));
}

#[test]
fn it_goes_to_anything_that_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, a, b) = two();
    let mut out = Slow { bytes: Vec::new(), closed: false, fails_at: usize::MAX };
    let report = block_on(stores.backup_to_writer(&mut out, &BackupOptions::new())).unwrap();
    assert!(out.closed && report.path.is_none());
    let path = dir.path().join("x.tar.gz");
    std::fs::write(&path, &out.bytes).unwrap();
    let archive = proven(&path);
    assert_eq!(archive.manifest().stores["state"].content(), a.content());
    assert_eq!(archive.manifest().stores["uploads"].content(), b.content());

    // A reader that goes away, and a store that fails.
    let mut broken = Slow { bytes: Vec::new(), closed: false, fails_at: 2000 };
    let error = block_on(stores.backup_to_writer(&mut broken, &BackupOptions::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    a.fail_at(Step::Next, 3, ErrorKind::Unreachable);
    let mut out = Slow { bytes: Vec::new(), closed: false, fails_at: usize::MAX };
    let error = block_on(stores.backup_to_writer(&mut out, &BackupOptions::new())).unwrap_err();
    assert_eq!((error.kind(), out.closed), (ErrorKind::Unreachable, false));
    assert!(Archive::from_source(out.bytes).is_err());
}

// Takes a few bytes at a time, and not every time.
struct Slow {
    bytes: Vec<u8>,
    closed: bool,
    fails_at: usize,
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= self.fails_at {
            return Poll::Ready(Err(io::Error::other("gone")));
        }
        if self.bytes.len() % 3 == 1 {
            self.bytes.push(bytes[0]);
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(1));
        }
        let n = bytes.len().min(1000);
        self.bytes.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_failure_at_any_call_leaves_no_file_and_no_open_session() {
    for step in [Step::Describe, Step::Pin, Step::Partitions, Step::Next, Step::Body] {
        for nth in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let (stores, a, b) = two();
            let stores = stores.quiesce(TestQuiesce::default());
            b.fail_at(step, nth, ErrorKind::NoSpace);
            let opened = count(&a, Step::Pin);
            let closed = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&closed);
            let seen = Arc::clone(&opened);
            a.hook(move |s| {
                seen.fetch_add(usize::from(s == Step::Pin), Ordering::SeqCst);
                counter.fetch_add(usize::from(s == Step::Close), Ordering::SeqCst);
                Ok(())
            });
            let path = dir.path().join("x.tar.gz");
            let outcome = block_on(stores.backup_to_file(&path, &BackupOptions::new()));
            assert_eq!(opened.load(Ordering::SeqCst), closed.load(Ordering::SeqCst));
            if outcome.is_ok() {
                assert!(nth > 1, "{step:?} was never called");
                break;
            }
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            assert!(error.subject().unwrap().starts_with("uploads"), "{error}");
            assert!(names(dir.path()).is_empty());
        }
    }
}

fn count(store: &MemoryStore, step: Step) -> Arc<AtomicUsize> {
    let counter = Arc::new(AtomicUsize::new(0));
    let inner = Arc::clone(&counter);
    store.hook(move |s| {
        inner.fetch_add(usize::from(s == step), Ordering::SeqCst);
        Ok(())
    });
    counter
}

#[test]
fn cancellation_and_panics_at_any_call_leave_nothing() {
    for panics in [false, true] {
        for nth in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let (stores, a, _) = two();
            let cancel = Cancel::new();
            let calls = AtomicUsize::new(0);
            let inner = cancel.clone();
            a.hook(move |step| {
                if step != Step::Close && calls.fetch_add(1, Ordering::SeqCst) == nth {
                    assert!(!panics, "as planned");
                    inner.cancel();
                }
                Ok(())
            });
            let path = dir.path().join("x.tar.gz");
            let options = BackupOptions::new().cancel(&cancel);
            match block_on(stores.backup_to_file(&path, &options)) {
                Err(error) if panics => {
                    assert_eq!(error.kind(), ErrorKind::Adapter);
                    assert!(error.to_string().contains("as planned"), "{error}");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
                Ok(_) => {
                    assert!(nth > 10 && !cancel.is_cancelled());
                    break;
                }
            }
            assert!(names(dir.path()).is_empty());
        }
    }
}

#[test]
fn a_dropped_future_has_removed_its_file() {
    for nth in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let (stores, a, _) = two();
        let path = dir.path().join("x.tar.gz");
        let (hit, stop) = futures::channel::oneshot::channel::<()>();
        let hit = Mutex::new(Some(hit));
        let calls = AtomicUsize::new(0);
        a.hook(move |_| {
            if calls.fetch_add(1, Ordering::SeqCst) == nth {
                drop(hit.lock().unwrap().take());
            }
            Ok(())
        });
        let options = BackupOptions::new();
        let dropped = block_on(async {
            let run = Box::pin(stores.backup_to_file(&path, &options));
            // The signal is looked at first: the run never gets past its call.
            matches!(select(stop, run).await, Either::Left(_))
        });
        assert!(dropped, "the run was faster than its drop");
        assert!(names(dir.path()).is_empty(), "after call {nth}");
    }
}

#[test]
fn an_optional_store_that_does_not_answer_makes_the_backup_partial() {
    for step in [Step::Describe, Step::Pin, Step::Partitions] {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (records(5), files());
        a.fail_always(step, ErrorKind::Unreachable);
        let stores =
            Stores::new("docs", "1").optional("vectors", a.clone()).with("uploads", b.clone());
        let path = dir.path().join("x.tar.gz");
        let report = block_on(stores.backup_to_file(&path, &BackupOptions::new())).unwrap();
        let manifest = proven(&path).manifest().clone();
        assert!(manifest.partial && manifest.stores["vectors"].missing);
        assert_eq!(manifest.stores["uploads"].content(), b.content());
        let Outcome::Partial(notices) = report.outcome else { panic!() };
        assert_eq!(notices[0].notice.kind, NoticeKind::StoreMissing);
        assert_eq!(notices[0].store, "vectors");
        // All that there is, of one moment: but not everything.
        assert_eq!(manifest.consistency, Consistency::Consistent);

        b.unreachable();
        let alone = Stores::new("docs", "1").optional("vectors", a).optional("uploads", b);
        let path = dir.path().join("y.tar.gz");
        let error = block_on(alone.backup_to_file(path, &BackupOptions::new())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert_eq!(names(dir.path()), ["x.tar.gz"]);
    }
}

#[test]
fn the_pause_and_the_words_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar.gz");
    let take = |stores: Stores, options: BackupOptions| {
        let report = block_on(stores.backup_to_file(&path, &options.overwrite(true)));
        report.map(|r| (r.manifest.consistency, r.manifest.stores["uploads"].consistency))
    };
    let options = BackupOptions::new;
    let host = TestQuiesce::default();
    let lost = TestQuiesce { runs_out: true, ..TestQuiesce::default() };
    let refuses = TestQuiesce { refuses: true, ..TestQuiesce::default() };

    let stores = || two().0;
    assert_eq!(
        take(stores().quiesce(host.clone()), options()).unwrap(),
        (Consistency::Consistent, StoreConsistency::Pinned)
    );
    assert_eq!(
        take(stores().quiesce(lost.clone()), options()).unwrap(),
        (Consistency::PerStore, StoreConsistency::Pinned)
    );
    assert!(take(stores().quiesce(refuses), options()).is_err());

    // A store that cannot fix a moment.
    let live = || {
        let (stores, _, b) = two();
        b.pinnable(false);
        stores
    };
    let fuzzy = (Consistency::Fuzzy, StoreConsistency::Fuzzy);
    assert_eq!(take(live(), options()).unwrap(), fuzzy);
    assert_eq!(
        take(live().quiesce(host.clone()), options()).unwrap(),
        (Consistency::Consistent, StoreConsistency::Held)
    );
    assert_eq!(take(live().quiesce(lost), options()).unwrap(), fuzzy);
    let short = live().quiesce(host.clone()).lease(Duration::ZERO);
    assert_eq!(take(short, options()).unwrap(), fuzzy);
    let accept = options().live_policy(LivePolicy::AcceptFuzzy);
    assert_eq!(take(live().quiesce(host.clone()), accept).unwrap(), fuzzy);
    let fail = options().live_policy(LivePolicy::Fail);
    assert_eq!(
        take(live().quiesce(host.clone()), fail).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let hold = options().live_policy(LivePolicy::HoldPause);
    assert_eq!(take(live(), hold).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(host.open.load(Ordering::SeqCst), 0);
    assert_eq!(host.pauses.load(Ordering::SeqCst), 5);
}

#[test]
fn a_pause_lasts_until_live_stores_are_read_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, pinned, live) = two();
    live.pinnable(false);
    let host = TestQuiesce::default();
    let open = Arc::clone(&host.open);
    live.hook({
        let open = Arc::clone(&open);
        move |step| {
            if step == Step::Next {
                assert_eq!(open.load(Ordering::SeqCst), 1);
            }
            Ok(())
        }
    });
    pinned.hook(move |step| {
        if step == Step::Next {
            assert_eq!(open.load(Ordering::SeqCst), 0);
        }
        Ok(())
    });
    let path = dir.path().join("x");
    block_on(stores.quiesce(host).backup_to_file(path, &BackupOptions::new())).unwrap();
}

#[test]
fn a_live_store_that_changed_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, a, _) = two();
    a.pinnable(false);
    let writer = a.clone();
    let once = AtomicUsize::new(0);
    a.hook(move |step| {
        if step == Step::Next && once.fetch_add(1, Ordering::SeqCst) == 2 {
            writer.insert("notes", 999, json!(1)).unwrap();
        }
        Ok(())
    });
    let path = dir.path().join("x");
    let report = block_on(stores.backup_to_file(path, &BackupOptions::new())).unwrap();
    assert_eq!(report.manifest.stores["state"].changed, Some(true));
}

#[test]
fn a_session_that_cannot_be_closed_is_remarked() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, a, _) = two();
    a.fail_at(Step::Close, 1, ErrorKind::Busy);
    let path = dir.path().join("x");
    let report = block_on(stores.backup_to_file(path, &BackupOptions::new())).unwrap();
    assert!(report.outcome.is_complete());
    let notice = &report.manifest.notices[0];
    assert_eq!((notice.store.as_str(), notice.notice.kind), ("state", NoticeKind::Remark));
}

#[test]
fn options_are_checked_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar.gz");
    let refused = |stores: &Stores, options: BackupOptions| {
        block_on(stores.backup_to_file(&path, &options)).unwrap_err().kind()
    };
    let (stores, a, _) = two();
    let pins = count(&a, Step::Pin);
    assert_eq!(refused(&stores, BackupOptions::new().stores(["nowhere"])), ErrorKind::NotFound);
    let nowhere = BackupOptions::new().select(Selection::new().collection("nowhere", "c"));
    assert_eq!(refused(&stores, nowhere), ErrorKind::NotFound);
    let none = BackupOptions::new().stores([""; 0]);
    assert_eq!(refused(&stores, none), ErrorKind::InvalidInput);
    for name in ["", "state", "a\nb", &"x".repeat(101)] {
        let (stores, ..) = two();
        let stores = stores.with(name, MemoryStore::new());
        assert_eq!(refused(&stores, BackupOptions::new()), ErrorKind::InvalidInput, "{name:?}");
    }
    std::fs::write(&path, "mine").unwrap();
    assert_eq!(refused(&stores, BackupOptions::new()), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    assert_eq!(pins.load(Ordering::SeqCst), 0);
    let part = BackupOptions::new().overwrite(true).stores(["state"]);
    let part = part.select(Selection::new().collection("state", "empty"));
    let report = block_on(stores.backup_to_file(&path, &part)).unwrap();
    assert_eq!(report.manifest.stores.len(), 1);
    assert_eq!(report.manifest.stores["state"].collections.len(), 1);
}

#[test]
fn a_catalog_takes_one_backup_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    let (stores, ..) = two();
    let lock = catalog.lock().unwrap();
    assert_eq!(block_on(stores.backup(&catalog)).unwrap_err().kind(), ErrorKind::Locked);
    drop(lock);
    block_on(stores.backup(&catalog)).unwrap();
    block_on(stores.backup(&catalog)).unwrap();
    let listing = catalog.list().unwrap();
    assert_eq!(listing.backups.len(), 2);
    let newest = catalog.latest().unwrap().manifest().id;
    assert_eq!(newest, listing.backups[1].manifest.id);
    assert_ne!(newest, listing.backups[0].manifest.id);
}

#[test]
fn events_tell_the_story_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&told);
    let stores = two().0.quiesce(TestQuiesce::default()).observe(move |event: &Event| {
        let value: serde_json::Value = serde_json::from_str(&event.to_json()).unwrap();
        inner.lock().unwrap().push(value["event"].as_str().unwrap().to_owned());
    });
    let path = dir.path().join("x");
    block_on(stores.backup_to_file(path, &BackupOptions::new())).unwrap();
    let mut told = told.lock().unwrap().clone();
    // Several threads: parts are told when they are written, the rest when it is done.
    let progress = told.iter().filter(|name| *name == "progress").count();
    assert_eq!(progress, 1, "one long piece");
    told.retain(|name| !["part", "progress", "store-read"].contains(&name.as_str()));
    let all = ["backup-started", "paused", "resumed", "pinned", "pinned", "backup-finished"];
    assert_eq!(told, all);
}

/// A source that gives what a test put in.
#[derive(Clone)]
struct Script {
    partitions: Arc<Mutex<Vec<VecDeque<Part>>>>,
    asked: Arc<Mutex<Option<PinRequest>>>,
    records: bool,
}

fn script(partitions: Vec<Vec<Part>>) -> Script {
    let partitions = partitions.into_iter().map(Into::into).collect();
    let partitions = Arc::new(Mutex::new(partitions));
    Script { partitions, asked: Arc::default(), records: true }
}

#[async_trait]
impl Adapter for Script {
    fn kind(&self) -> &'static str {
        "script"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { records: self.records, ..Capabilities::default() }
    }
    async fn describe(&self) -> Result<Description> {
        Ok(Description::new("script"))
    }
}

#[async_trait]
impl Source for Script {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        *self.asked.lock().unwrap() = Some(request.clone());
        Ok(Pinned::Pinned { session: Box::new(self.clone()), mark: Some("m".into()) })
    }
}

#[async_trait]
impl SourceSession for Script {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        let count = self.partitions.lock().unwrap().len();
        Ok((0..count).map(|n| Partition::new(format!("p{n}"))).collect())
    }
    async fn next(&self, partition: &Partition) -> Result<Option<Part>> {
        let n: usize = partition.name[1..].parse().unwrap();
        Ok(self.partitions.lock().unwrap()[n].pop_front())
    }
    async fn close(self: Box<Self>) -> Result<Summary> {
        Ok(Summary::new())
    }
}

fn schema() -> Part {
    let info = CollectionInfo::default();
    Part::Schema(Schema { collection: "c".into(), document: json!({}), info })
}

fn batch(key: i32) -> Part {
    let mut builder = BatchBuilder::new("c");
    builder.push_json(&Key::from(key), b"1").unwrap();
    let batch: RecordBatch = builder.finish().unwrap();
    Part::Records(batch)
}

fn end(count: u64) -> Part {
    let mut end = CollectionEnd { collection: "c".into(), ..CollectionEnd::default() };
    end.count = Some(count);
    end.statistics.insert("documents".into(), count);
    Part::End(end)
}

fn body(pieces: &[usize]) -> ByteStream {
    let pieces: Vec<_> = pieces.iter().map(|n| Ok(Bytes::from(vec![1; *n]))).collect();
    stream::iter(pieces).boxed()
}

fn file(path: &str, len: u64, body: ByteStream) -> Part {
    let path = EntryPath::new(path).unwrap();
    let kind = EntryKind::File { len, body };
    Part::Entry(FileEntry { root: "c".into(), path, mode: 0o100644, modified: (0, 0), kind })
}

fn take(partitions: Vec<Vec<Part>>) -> (Archive, BackupReport, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::new("docs", "1").with_source("s", script(partitions));
    let path = dir.path().join("x");
    let options = BackupOptions::new().spool_dir(dir.path()).parallel(2);
    let report = block_on(stores.backup_to_file(&path, &options)).unwrap();
    assert_eq!(names(dir.path()), ["x"]);
    (proven(&path), report, dir)
}

fn refused(partitions: Vec<Vec<Part>>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::new("docs", "1").with_source("s", script(partitions));
    let path = dir.path().join("x");
    let error = block_on(stores.backup_to_file(&path, &BackupOptions::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Adapter);
    assert!(names(dir.path()).is_empty());
    error.to_string()
}

#[test]
fn a_source_that_breaks_its_word_is_found_out() {
    let early = "a source gave records before their schema (s";
    assert!(refused(vec![vec![batch(1), end(1)]]).starts_with(early));
    assert!(refused(vec![vec![file("a", 1, body(&[1])), end(1)]]).starts_with(early));
    for (parts, what) in [
        (vec![schema(), schema()], "two schemas (s: c)"),
        (vec![schema(), batch(1), end(2)], "gave 2 records, and 1 came (s: c)"),
        (vec![schema(), batch(1)], "stopped in the middle of a collection (s: c)"),
        (vec![schema(), end(0), batch(1)], "that it had ended (s: c)"),
    ] {
        let error = refused(vec![parts]);
        assert!(error.ends_with(what), "{error}");
    }
}

#[test]
fn records_wait_for_their_schema_from_another_partition() {
    let other = Part::Notice(remark("first something else"));
    let partitions = vec![
        vec![other, schema(), batch(1), batch(2), end(2)],
        vec![batch(3), end(1)],
        vec![batch(4), batch(5), end(2)],
    ];
    let (archive, report, _dir) = take(partitions);
    let collection = &archive.manifest().stores["s"].collections["c"];
    assert_eq!(collection.tally.records, 5);
    assert_eq!(collection.statistics["documents"], 5);
    assert!(report.outcome.is_complete());
    assert_eq!(archive.manifest().stores["s"].mark.as_deref(), Some("m"));
}

#[test]
fn a_snapshot_of_unknown_length_is_spooled() {
    let body = body(&[300_000, 0, 1, 700_000]);
    let blob = Blob {
        name: "image".into(),
        len: None,
        masked: vec![0..4, 4..10],
        metadata: crate::Metadata::new(),
        body,
    };
    let (archive, ..) = take(vec![vec![Part::Blob(blob)]]);
    let blob = &archive.manifest().stores["s"].blobs["image"];
    assert_eq!((blob.len, &blob.masked[..]), (1_000_001, &[(0, 4), (4, 10)][..]));
    let mut bytes = vec![1; 1_000_001];
    bytes[..10].fill(0);
    assert_eq!(blob.digest, crate::record::Sha256Digest::of(&bytes));
}

#[test]
fn files_that_shrink_or_grow_are_whole_parts_and_noted() {
    let endless = stream::repeat_with(|| Ok(Bytes::from(vec![1; 1000]))).boxed();
    let parts = vec![
        schema(),
        file("exact", 5, body(&[2, 3])),
        file("grew", 1500, endless),
        file("shrank", 10, body(&[4])),
        end(3),
    ];
    let (archive, report, _dir) = take(vec![parts]);
    let Outcome::Partial(notices) = report.outcome else { panic!() };
    let notices: Vec<_> =
        notices.iter().map(|n| (n.notice.kind, n.notice.subject.as_str())).collect();
    assert_eq!(notices, [(NoticeKind::Grew, "grew"), (NoticeKind::Shrank, "shrank")]);
    assert_eq!(archive.manifest().stores["s"].collections["c"].tally.records, 3);
    // Named twice over: a body that failed ends the backup.
    let failing = stream::iter([Err(Error::new(ErrorKind::Io, "no"))]).boxed();
    let stores =
        Stores::new("d", "1").with_source("s", script(vec![vec![schema(), file("a", 9, failing)]]));
    let dir = tempfile::tempdir().unwrap();
    let error = block_on(stores.backup_to_file(dir.path().join("x"), &BackupOptions::new()));
    assert_eq!(error.unwrap_err().to_string(), "no (s)");
}

#[test]
fn a_thousand_notices_are_kept_and_all_are_counted() {
    let notice = |n: usize| {
        let mut notice = remark(format!("number {n}"));
        notice.kind = NoticeKind::Unreadable;
        Part::Notice(notice)
    };
    let (archive, ..) = take(vec![(0..1500).map(notice).collect()]);
    let manifest = archive.manifest();
    assert_eq!((manifest.notices.len(), manifest.notice_count), (1000, 1500));
    assert_eq!(manifest.notices[999].notice.detail, "number 999");
    assert!(manifest.partial);
}

#[test]
fn what_waits_is_bounded() {
    // 400 batches of 1 MiB, written by a thread that may be slow: the source is never more
    // than a few ahead.
    let (given, written) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let most = Arc::new(AtomicUsize::new(0));
    let parts = |given: Arc<AtomicUsize>| {
        (0..40).map(move |n| {
            let given = Arc::clone(&given);
            let pieces = (0..10).map(move |_| {
                given.fetch_add(1, Ordering::SeqCst);
                Ok(Bytes::from(vec![n; 1 << 20]))
            });
            file(&format!("{n:03}"), 10 << 20, stream::iter(pieces).boxed())
        })
    };
    let mut all = vec![schema()];
    all.extend(parts(Arc::clone(&given)));
    all.push(end(40));
    let stores = Stores::new("d", "1").with_source("s", script(vec![all])).observe({
        let (given, most) = (Arc::clone(&given), Arc::clone(&most));
        move |event: &Event| {
            if let Event::Progress { done, .. } = event {
                written.store((*done >> 20) as usize, Ordering::SeqCst);
                let ahead = given.load(Ordering::SeqCst) - written.load(Ordering::SeqCst);
                most.fetch_max(ahead, Ordering::SeqCst);
            }
        }
    });
    let start = Instant::now();
    block_on(stores.backup_to_writer(futures::io::sink(), &BackupOptions::new())).unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 400);
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 18, "{most} MiB waited, after {:?}", start.elapsed());
}

#[test]
fn a_cancellation_is_heard_within_an_endless_body() {
    let dir = tempfile::tempdir().unwrap();
    let endless = stream::repeat_with(|| Ok(Bytes::from(vec![1; 1 << 20]))).boxed();
    let cancel = Cancel::new();
    let inner = cancel.clone();
    let stores = Stores::new("d", "1")
        .with_source("s", script(vec![vec![schema(), file("a", u64::MAX >> 1, endless)]]))
        .observe(move |event: &Event| {
            if matches!(event, Event::Progress { .. }) {
                inner.cancel();
            }
        });
    let options = BackupOptions::new().cancel(&cancel);
    let error = block_on(stores.backup_to_file(dir.path().join("x"), &options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_half_restored_memory_is_not_backed_up() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    let (stores, a, _) = two();
    block_on(stores.backup(&catalog)).unwrap();
    a.fail_at(Step::Finish, 1, ErrorKind::Busy);
    let archive = catalog.latest().unwrap();
    block_on(async { stores.plan_restore(&archive).await?.execute().await }).unwrap();
    assert_eq!(block_on(stores.backup(&catalog)).unwrap_err().kind(), ErrorKind::Unfinished);
    block_on(stores.resume(dir.path())).unwrap();
    block_on(stores.backup(&catalog)).unwrap();
}

#[test]
fn every_run_can_move_between_threads() {
    fn sends<T: Send>(_: T) {}
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    let (stores, ..) = two();
    let options = BackupOptions::new();
    sends(stores.backup(&catalog));
    sends(stores.backup_to_writer(futures::io::sink(), &options));
    block_on(stores.backup(&catalog)).unwrap();
    let archive = catalog.latest().unwrap();
    sends(stores.plan_restore(&archive));
    sends(stores.resume(dir.path()));
    sends(block_on(stores.plan_restore(&archive)).unwrap().execute());
}
