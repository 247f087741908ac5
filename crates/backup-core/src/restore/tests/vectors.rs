//! Vectors that are left out or made again.

use super::*;
use crate::{
    Conflict, Embedder, NameMap, RestoredVector, Rewrite, Selection, Source, async_trait,
    manifest::VectorInfo,
    record::{BatchBuilder, ElementType, Key, RecordBatch},
};

/// A model of three dimensions: what it makes of a text is its length, its vowels, and one.
#[derive(Clone, Default)]
struct Model {
    name: &'static str,
    dim: usize,
    asked: Arc<Mutex<Vec<String>>>,
    gives: Option<std::result::Result<Vec<Vec<f32>>, &'static str>>,
}

impl Model {
    fn new(name: &'static str) -> Self {
        Self { name, dim: 3, ..Self::default() }
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }
}

fn raw(text: &str) -> [f32; 3] {
    [text.len() as f32, text.matches(['a', 'e', 'i', 'o', 'u']).count() as f32, 1.0]
}

fn unit(text: &str) -> Vec<f32> {
    let raw = raw(text);
    let length = raw.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    raw.iter().map(|v| (f64::from(*v) / length) as f32).collect()
}

#[async_trait]
impl Embedder for Model {
    fn model(&self) -> &str {
        self.name
    }

    fn dimension(&self) -> usize {
        self.dim
    }

    fn most(&self) -> usize {
        2
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        assert!((1..=2).contains(&texts.len()));
        self.asked.lock().unwrap().extend_from_slice(texts);
        match &self.gives {
            None => Ok(texts.iter().map(|text| raw(text).to_vec()).collect()),
            Some(Ok(vectors)) => Ok(vectors.clone()),
            Some(Err(what)) => Err(Error::new(ErrorKind::Unreachable, *what)),
        }
    }
}

struct Notes {
    dir: tempfile::TempDir,
    store: MemoryStore,
}

const TEXTS: [&str; 5] = ["a dog", "the cat sat", "", "onomatopoeia", "xyz"];

/// Five notes with a vector of two dimensions; the last has none, and a sparse one instead.
fn notes(model: Option<&str>, dim: usize) -> Notes {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new().with_batch_records(2);
    let vector = |dim: Option<u64>, distance: Option<&str>| VectorInfo {
        dim,
        element: ElementType::F32,
        distance: distance.map(str::to_owned),
    };
    let info = CollectionInfo {
        vector_info: [
            ("text".to_owned(), vector(Some(dim as u64), Some("cosine"))),
            ("words".to_owned(), vector(None, None)),
        ]
        .into(),
        model: model.map(str::to_owned),
        ..CollectionInfo::default()
    };
    let document = json!({"vectors": {"text": {"dim": dim}, "words": {}}, "more": 1});
    store.create("notes", document, info);
    let mut builder = BatchBuilder::new("notes");
    let text = builder.dense("text", ElementType::F32, dim);
    let words = builder.sparse("words", ElementType::F32);
    for (n, body) in (0_i32..).zip(TEXTS) {
        builder.push(&Key::from(n), |json| json.value(&json!({"body": body}))).unwrap();
        match n {
            4 => builder.set_sparse(words, &[7], &1.0_f32.to_le_bytes()).unwrap(),
            _ => builder.set_f32(text, &vec![n as f32; dim]).unwrap(),
        }
    }
    store.insert_batch(&builder.finish().unwrap()).unwrap();
    let path = dir.path().join("x.tar.gz");
    let set = Stores::new("docs", "1.0.0").with("state", store.clone());
    block_on(set.backup_to_file(&path, &BackupOptions::new())).unwrap();
    Notes { dir, store }
}

impl Notes {
    fn plan(&self, options: &RestoreOptions) -> Result<RestorePlan> {
        let archive = Archive::open(self.dir.path().join("x.tar.gz")).unwrap();
        let set = Stores::new("docs", "1.0.0").with("state", self.store.clone());
        block_on(set.plan_restore_with(&archive, options))
    }

    fn restore(&self, options: &RestoreOptions) -> Result<RestoreReport> {
        block_on(self.plan(options)?.execute())
    }

    /// What the store gives of a collection.
    fn live(&self, collection: &str) -> (crate::Schema, Vec<RecordBatch>) {
        block_on(async {
            let request = crate::PinRequest::new();
            let crate::Pinned::Pinned { session, .. } = self.store.pin(&request).await.unwrap()
            else {
                panic!("it pins")
            };
            let (mut schema, mut batches) = (None, Vec::new());
            for partition in session.partitions().await.unwrap() {
                while let Some(part) = session.next(&partition).await.unwrap() {
                    match part {
                        crate::Part::Schema(s) if s.collection == collection => schema = Some(s),
                        crate::Part::Records(b) if b.collection() == collection => batches.push(b),
                        _ => {}
                    }
                }
            }
            (schema.unwrap(), batches)
        })
    }

    fn vectors(&self, collection: &str, name: &str) -> Vec<Option<Vec<f32>>> {
        let batches = self.live(collection).1;
        let records = batches.iter().flat_map(RecordBatch::iter);
        let of = |record: crate::record::RecordRef<'_>| {
            let column = record.vectors().find(|column| column.name() == name)?;
            Some(column.row_f32(record.row()))
        };
        records.map(of).collect()
    }
}

fn embedding(model: &Model) -> Embedding {
    Embedding::new("state", "notes", "text", "/body", model.clone())
}

#[test]
fn a_vector_is_left_out() {
    let notes = notes(Some("old"), 2);
    let options = bare().drop_vector("state", "notes", "text");
    let plan = notes.plan(&options).unwrap();
    assert!(plan.to_string().contains("note: notes: the vector \"text\" is left out"), "{plan}");
    let report = block_on(plan.execute()).unwrap();
    let left_out = &report.stores[0].vectors["notes"];
    assert_eq!(left_out.iter().collect::<Vec<_>>(), [(&"text".into(), &RestoredVector::LeftOut)]);
    let content = report.stores[0].content.as_ref().unwrap();
    assert_eq!(content.collections["notes"].records, 5);
    assert_eq!(content.collections["notes"].vectors.keys().collect::<Vec<_>>(), ["words"]);
    assert_eq!(notes.vectors("notes", "text"), [None, None, None, None, None]);
    assert_eq!(notes.vectors("notes", "words")[4], Some(vec![1.0]));
    let (schema, _) = notes.live("notes");
    assert_eq!(schema.document, json!({"vectors": {"words": {}}, "more": 1}));
    assert!(!schema.info.vector_info.contains_key("text"));
    assert_eq!(schema.info.model.as_deref(), Some("old"));
}

#[test]
fn vectors_of_another_model_are_made_again() {
    let notes = notes(Some("old"), 2);
    let model = Model::new("new");
    let plan = notes.plan(&bare().embed(embedding(&model))).unwrap();
    assert!(plan.to_string().contains("is made for every record, of the text at \"/body\""));
    let report = block_on(plan.execute()).unwrap();
    let told = RestoredVector::Embedded { model: "new".into(), made: 4, kept: 0, without_text: 1 };
    assert_eq!(report.stores[0].vectors["notes"]["text"], told);
    assert_eq!(model.asked(), ["a dog", "onomatopoeia", "the cat sat", "xyz"]);
    let expected = TEXTS.map(|text| (!text.is_empty()).then(|| unit(text)));
    assert_eq!(notes.vectors("notes", "text"), expected);
    assert_eq!(notes.vectors("notes", "words")[4], Some(vec![1.0]));
    let (schema, _) = notes.live("notes");
    assert_eq!(schema.document["vectors"]["text"]["dim"], 3);
    assert_eq!(schema.info.vector_info["text"].dim, Some(3));
    assert_eq!(schema.info.vector_info["text"].distance.as_deref(), Some("cosine"));
    assert_eq!(schema.info.model.as_deref(), Some("new"));
}

#[test]
fn of_the_same_model_only_what_is_missing_is_made() {
    for (said, options) in [(Some("new"), false), (None, true)] {
        let notes = notes(said, 3);
        let before = notes.vectors("notes", "text");
        let model = Model::new("new");
        let mut embedding = embedding(&model);
        if options {
            embedding = embedding.missing_only();
        }
        let report = notes.restore(&bare().embed(embedding)).unwrap();
        let told =
            RestoredVector::Embedded { model: "new".into(), made: 1, kept: 4, without_text: 0 };
        assert_eq!(report.stores[0].vectors["notes"]["text"], told);
        assert_eq!(model.asked(), ["xyz"]);
        let after = notes.vectors("notes", "text");
        assert_eq!(after[..4], before[..4]);
        assert_eq!(after[4], Some(unit("xyz")));
    }
    // Unknown: all again.
    let notes = notes(None, 3);
    let model = Model::new("new");
    notes.restore(&bare().embed(embedding(&model))).unwrap();
    assert_eq!(model.asked().len(), 4);
}

#[test]
fn a_collection_gets_a_vector_that_it_never_had() {
    let notes = notes(Some("old"), 2);
    let model = Model::new("new");
    let embedding =
        Embedding::new("state", "notes", "more", "/body", model.clone()).distance("dot");
    notes.restore(&bare().embed(embedding)).unwrap();
    assert_eq!(notes.vectors("notes", "more")[0], Some(raw("a dog").to_vec()), "not scaled");
    assert_eq!(notes.vectors("notes", "text")[3], Some(vec![3.0; 2]));
    let (schema, _) = notes.live("notes");
    assert_eq!(schema.info.vector_info["more"].distance.as_deref(), Some("dot"));
}

#[test]
fn texts_are_those_that_are_written_and_vectors_go_with_their_records() {
    let notes = notes(Some("old"), 2);
    notes.store.insert("notes", 3, json!({"body": "live"})).unwrap();
    notes.store.insert("notes", 9, json!({"body": "mine"})).unwrap();
    let model = Model::new("new");
    let options = bare()
        .embed(embedding(&model))
        .rewrite(Rewrite::new().set("/body", "rewritten").unwrap())
        .select(Selection::parse(["/body != \"a dog\""]).unwrap())
        .map(NameMap::new().with_collection("state", "notes", "copies"))
        .merge()
        .conflict(Conflict::Overwrite);
    let plan = notes.plan(&options).unwrap();
    let preview = block_on(plan.preview()).unwrap();
    assert_eq!(preview["state"]["copies"].counts.created, 4);
    assert!(model.asked().is_empty(), "a preview asks no model");
    let report = block_on(plan.execute()).unwrap();
    assert_eq!(model.asked(), ["rewritten"; 4]);
    assert_eq!(notes.vectors("copies", "text"), vec![Some(unit("rewritten")); 4]);
    assert_eq!(report.stores[0].vectors.keys().collect::<Vec<_>>(), ["copies"]);
}

#[test]
fn what_cannot_be_is_refused_when_it_is_planned() {
    let notes = notes(Some("old"), 2);
    let before = notes.store.snapshot();
    let model = Model::new("new");
    let refused = |options: RestoreOptions| {
        let error = notes.plan(&options).unwrap_err();
        assert!(notes.store.snapshot() == before);
        (error.kind(), format!("{error}; {}", error.advice()))
    };
    let (kind, text) = refused(bare().drop_vector("state", "notes", "txet"));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("[\"text\", \"words\"]"), "{text}");
    let (kind, _) = refused(bare().drop_vector("state", "note", "text"));
    assert_eq!(kind, ErrorKind::NotFound);
    let (kind, _) = refused(bare().drop_vector("state", "notes", "text").embed(embedding(&model)));
    assert_eq!(kind, ErrorKind::InvalidInput);
    let (kind, _) = refused(bare().embed(embedding(&model)).embed(embedding(&model)));
    assert_eq!(kind, ErrorKind::InvalidInput);
    let (kind, text) = refused(bare().embed(embedding(&model).missing_only()));
    assert_eq!((kind, text.contains("missing_only")), (ErrorKind::Incompatible, true), "{text}");
    let sparse = Embedding::new("state", "notes", "words", "/body", model.clone());
    assert_eq!(refused(bare().embed(sparse)).0, ErrorKind::Unsupported);
    let odd = Embedding::new("state", "notes", "text", "body", model.clone());
    assert_eq!(refused(bare().embed(odd)).0, ErrorKind::InvalidInput);
    let none = Model { dim: 0, ..model };
    assert_eq!(refused(bare().embed(embedding(&none))).0, ErrorKind::InvalidInput);
}

#[test]
fn a_model_that_fails_changes_nothing() {
    let notes = notes(Some("old"), 2);
    let before = notes.store.snapshot();
    for (gives, kind) in [
        (Err("the model is down"), ErrorKind::Unreachable),
        (Ok(vec![]), ErrorKind::InvalidInput),
        (Ok(vec![vec![1.0; 3], vec![1.0; 2]]), ErrorKind::InvalidInput),
        (Ok(vec![vec![1.0; 3], vec![1.0, f32::NAN, 1.0]]), ErrorKind::InvalidInput),
    ] {
        let model = Model { gives: Some(gives), ..Model::new("new") };
        let error = notes.restore(&bare().embed(embedding(&model))).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("state/notes, vector \"text\""), "{error}");
        assert!(notes.store.snapshot() == before);
        assert_eq!(notes.store.traces(), [""; 0]);
    }
}
