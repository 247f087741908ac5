//! References, and what a restore makes of them.

use super::*;
use crate::{
    Change, Conflict, Migration, Migrations, NameMap, Reference, Selection, manifest::ReferenceEnd,
};

/// Ten notes, each of which names a passage; that of the tenth is missing. Archived; of both
/// stores something else is live.
struct Linked {
    dir: tempfile::TempDir,
    rows: MemoryStore,
    points: MemoryStore,
}

fn reference() -> Reference {
    let from = ReferenceEnd::field("state", "notes", "/passage");
    Reference::new(from, ReferenceEnd::key("vectors", "passages"))
}

// Longer than what a fingerprint holds.
fn passage(n: i32) -> String {
    format!("docs:passage:{n:06}")
}

impl Linked {
    fn new(reference: Reference) -> Self {
        let linked = Self {
            dir: tempfile::tempdir().unwrap(),
            rows: MemoryStore::new().with_batch_records(3),
            points: MemoryStore::new().with_batch_records(3),
        };
        for n in 0..10 {
            linked.rows.insert("notes", n, json!({"passage": passage(n), "n": n})).unwrap();
            if n != 9 {
                linked.points.insert("passages", &*passage(n), json!({"note": n})).unwrap();
            }
        }
        let path = linked.dir.path().join("x.tar.gz");
        let stores = linked.stores().reference(reference);
        let report = block_on(stores.backup_to_file(&path, &BackupOptions::new())).unwrap();
        assert!(report.outcome.is_complete());
        linked.rows.clear();
        linked.points.clear();
        linked.rows.insert("notes", 1, json!("live")).unwrap();
        linked.points.insert("passages", 1, json!("live")).unwrap();
        linked
    }

    fn stores(&self) -> Stores {
        Stores::new("docs", "1.0.0")
            .with("state", self.rows.clone())
            .with("vectors", self.points.clone())
    }

    fn plan(&self, stores: &Stores, options: &RestoreOptions) -> RestorePlan {
        let archive = Archive::open(self.dir.path().join("x.tar.gz")).unwrap();
        block_on(stores.plan_restore_with(&archive, options)).unwrap()
    }

    fn restore(&self, reference: Reference, options: &RestoreOptions) -> Result<RestoreReport> {
        block_on(self.plan(&self.stores().reference(reference), options).execute())
    }
}

fn select(expression: &str) -> RestoreOptions {
    bare().select(Selection::parse([expression]).unwrap())
}

fn dangling(report: &RestoreReport) -> (Option<u64>, Option<u64>) {
    let [one] = &report.references[..] else { panic!("{:?}", report.references) };
    (one.count.dangling, one.in_archive)
}

#[test]
fn a_whole_restore_is_as_good_as_the_archive() {
    let linked = Linked::new(reference());
    let plan = linked.plan(&linked.stores(), &bare());
    assert_eq!(plan.references()[0].dangling, Some(1));
    let line = "reference in the archive: state/notes:/passage -> vectors/passages: \
                1 of 10 values dangles: \"docs:passage:000009\"\n";
    assert!(plan.to_string().contains(line), "{plan}");

    // Required: not more than in the archive.
    let report = linked.restore(reference().required(), &bare()).unwrap();
    assert_eq!(dangling(&report), (Some(1), Some(1)));
    assert_eq!(report.references[0].count.examples, [r#""docs:passage:000009""#]);
    assert!(report.warnings.is_empty() && !report.references[0].is_worse());
}

#[test]
fn a_selection_that_cuts_is_told() {
    // Five of the passages are not brought, and are not live.
    let linked = Linked::new(reference());
    let cut = select("vectors/passages: /note<5");
    let report = linked.restore(reference(), &cut).unwrap();
    assert_eq!(dangling(&report), (Some(5), Some(1)));
    let warning = "reference state/notes:/passage -> vectors/passages: 5 of 10 values dangle: ";
    assert!(report.warnings[0].starts_with(warning), "{:?}", report.warnings);
    assert!(report.warnings[0].ends_with("; 1 in the archive"), "{:?}", report.warnings);
    // They are now. Notes that are live as they are archived are not written again.
    let report = linked.restore(reference().required(), &bare().merge()).unwrap();
    assert_eq!(dangling(&report), (Some(0), Some(1)));
    let report = linked.restore(reference().required(), &cut).unwrap();
    assert_eq!(dangling(&report), (Some(1), Some(1)));
    assert!(report.warnings.is_empty());
}

#[test]
fn a_required_reference_takes_the_restore_back() {
    let linked = Linked::new(reference().required());
    let before = [linked.rows.snapshot(), linked.points.snapshot()];
    let cut = select("vectors/passages: /note<5");
    let steps = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&steps);
    let stores = linked.stores().reference(reference().required());
    let stores = stores.observe(move |event: &Event| {
        if let Event::Step { step, .. } = event {
            inner.lock().unwrap().push(step.clone());
        }
    });
    let error = block_on(linked.plan(&stores, &cut).execute()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("5 of 10 values dangle"), "{error}");
    for way_out in ["as before", "both ends", "add to stores", "allow"] {
        assert!(error.advice().contains(way_out), "{}", error.advice());
    }
    assert_eq!(*steps.lock().unwrap(), [RestoreStep::Staged]);
    assert_eq!([linked.rows.snapshot(), linked.points.snapshot()], before);
    assert!(linked.rows.traces().is_empty() && linked.points.traces().is_empty());

    let report = linked.restore(reference().required(), &cut.allow_dangling(true)).unwrap();
    assert_eq!(dangling(&report), (Some(5), Some(1)));
    assert_eq!(report.warnings.len(), 1);
}

#[test]
fn what_a_merge_does_not_bring_may_be_live() {
    let linked = Linked::new(reference());
    linked.points.insert("passages", &*passage(9), json!("live")).unwrap();
    // Of both sides: the live one stays, and is named all the same.
    linked.points.insert("passages", &*passage(3), json!("live")).unwrap();
    let report = linked.restore(reference(), &bare().merge().conflict(Conflict::Skip)).unwrap();
    assert_eq!(dangling(&report), (Some(0), Some(1)));
    // That of the notes which is live is skipped, with what it names.
    assert_eq!(report.references[0].count.values, 9);
    // The preview counts no references and needs none.
    let plan = linked.plan(&linked.stores().reference(reference()), &bare().merge());
    assert_eq!(block_on(plan.preview()).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_known_is_said() {
    let why = |linked: &Linked, reference: Reference, options: &RestoreOptions| {
        let required = reference.is_required();
        let report = linked.restore(reference, options).unwrap();
        let count = &report.references[0].count;
        assert_eq!((count.dangling, count.examples.len()), (None, 0));
        // A reference that is required is not silently left alone.
        assert_eq!(report.warnings.len(), usize::from(required), "{:?}", report.warnings);
        count.unchecked.clone().unwrap()
    };
    let linked = Linked::new(reference());
    for store in ["state", "vectors"] {
        let text = why(&linked, reference(), &bare().stores([store]));
        assert!(text.ends_with("the store is not restored"), "{text}");
    }
    let text = why(&linked, reference().required(), &bare().stores(["state"]));
    assert!(text.starts_with("vectors/passages: "), "{text}");
    let linked = Linked::new(reference());
    // A field: the live store cannot be asked for it.
    let to = ReferenceEnd::field("state", "notes", "/n");
    let by_field = Reference::new(ReferenceEnd::field("vectors", "passages", "/note"), to);
    let cut = select("state/notes: /n<5");
    assert!(why(&linked, by_field.clone(), &cut).contains("4 of 9 values were not restored"));
    // It need not be asked.
    let linked = Linked::new(reference());
    let report = linked.restore(by_field, &bare().merge()).unwrap();
    assert_eq!(dangling(&report), (Some(0), None));
    // A live store that does not answer.
    let linked = Linked::new(reference());
    linked.points.fail_always(Step::Existing, ErrorKind::Unreachable);
    let none = select("vectors/passages: /note>100");
    assert!(why(&linked, reference(), &none).contains("the live store cannot tell: "));
}

#[test]
fn other_names_lead_to_the_same_records() {
    let linked = Linked::new(reference());
    // Beside what is there, in another store and in other collections.
    let beside = MemoryStore::new();
    let names = NameMap::parse(["vectors=test", "vectors/passages=copies", "state/notes=mine"]);
    let stores = linked.stores().with("test", beside.clone()).reference(reference().required());
    let options = bare().map(names.unwrap());
    let report = block_on(linked.plan(&stores, &options).execute()).unwrap();
    assert_eq!(beside.content().collections["copies"].records, 9);
    assert_eq!(dangling(&report), (Some(1), Some(1)));
}

#[test]
fn a_migration_leads_to_what_the_host_declares() {
    let linked = Linked::new(reference());
    let migration = Migration::new("1.0.0", "2.0.0")
        .describe("names")
        .change(Change::rename("state", "notes", "/passage", "/about"))
        .change(Change::rename_collection("vectors", "passages", "pieces"));
    let now = Reference::new(
        ReferenceEnd::field("state", "notes", "/about"),
        ReferenceEnd::key("vectors", "pieces"),
    );
    let stores = Stores::new("docs", "2.0.0")
        .with("state", linked.rows.clone())
        .with("vectors", linked.points.clone())
        .migrations(Migrations::new([migration]).unwrap());
    // The archive knows it under other names only.
    let report = block_on(linked.plan(&stores.reference(now), &bare()).execute()).unwrap();
    assert_eq!(report.references[0].count.values, 10);
    assert_eq!(dangling(&report), (Some(1), None));
    assert!(report.warnings[0].contains("does not say how many"), "{:?}", report.warnings);
}

#[test]
fn entries_are_named_by_their_paths() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, files) = (MemoryStore::new(), MemoryStore::new());
    for (n, path) in ["a/b", "a/c"].into_iter().enumerate() {
        rows.insert("notes", n as u64, json!({"path": path})).unwrap();
    }
    files.put_directory("root", EntryPath::new("a").unwrap());
    files.put_file("root", EntryPath::new("a/b").unwrap(), vec![7; 3]);
    let from = ReferenceEnd::field("state", "notes", "/path");
    let stores = Stores::new("docs", "1.0.0")
        .with("state", rows)
        .with("uploads", files)
        .reference(Reference::new(from, ReferenceEnd::key("uploads", "root")));
    let path = dir.path().join("x.tar.gz");
    block_on(stores.backup_to_file(&path, &BackupOptions::new())).unwrap();
    let archive = Archive::open(path).unwrap();
    let plan = block_on(stores.plan_restore_with(&archive, &bare())).unwrap();
    assert_eq!(dangling(&block_on(plan.execute()).unwrap()), (Some(1), Some(1)));
}

#[test]
fn a_safety_backup_counts_what_it_can() {
    let linked = Linked::new(reference());
    for stores in [&["state", "vectors"][..], &["state"]] {
        let dir = linked.dir.path().join("safe");
        let options = RestoreOptions::new().safety_backup(&dir).stores(stores.iter().copied());
        let report = linked.restore(reference().required(), &options).unwrap();
        let kept = Archive::open(report.safety_backup.unwrap()).unwrap();
        assert_eq!(kept.manifest().references.len(), stores.len() - 1);
    }
}
