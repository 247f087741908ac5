//! The example of every member, and what reading and writing keep.
//!
//! The types are built by struct literals, so that the compiler asks for a new member here; from
//! here it gets into `docs/manifest-v1.example.json`, which is held against the schema.

use std::{collections::BTreeMap, path::PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    ArchiveId, ErrorKind, Metadata, Notice, NoticeKind, Timestamp,
    archive::Codec,
    part::BlobContent,
    record::{ContentDigest, ElementType, Sha256Digest, Tally, VectorTally},
};

fn map<K: Into<String>, V, const N: usize>(members: [(K, V); N]) -> BTreeMap<String, V> {
    members.map(|(name, value)| (name.into(), value)).into()
}

fn some(text: &str) -> Option<String> {
    Some(text.into())
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_micros((1_767_323_045 + 60 * minute) * 1_000_000)
}

fn preamble() -> Preamble {
    Preamble {
        format: 1,
        id: "019b7d1c-8c22-7bbb-8000-0123456789ab".parse().unwrap(),
        created: at(0),
        producer: Producer { name: "backup-kit".into(), version: "0.1.0".into() },
        application: Application { name: "docs-memory".into(), version: "1.4.0".into() },
        description: some("before the upgrade"),
        extra: Metadata::new(),
    }
}

fn manifest() -> Manifest {
    let Preamble { format, id, created, producer, application, description, extra } = preamble();
    let state = StoreManifest {
        kind: "sqlite".into(),
        engine: "SQLite".into(),
        engine_version: some("3.51.3"),
        consistency: StoreConsistency::Pinned,
        window: TimeWindow { start: at(0), end: at(1) },
        mark: some("data_version 7"),
        changed: Some(false),
        missing: false,
        parts: 1,
        bytes: 8192,
        collections: BTreeMap::new(),
        blobs: map([(
            "main.db",
            BlobContent {
                len: 8192,
                digest: Sha256Digest::of(b"the file with its counters as zeros"),
                masked: vec![(18, 20), (24, 28)],
            },
        )]),
        metadata: map([("journal_mode", json!("wal"))]),
        extra: Metadata::new(),
    };
    let passages = CollectionManifest {
        tally: Tally {
            records: 974,
            digest: ContentDigest::from_bytes([0x5a; 32]),
            vectors: map([(
                "text",
                VectorTally { count: 970, digest: ContentDigest::from_bytes([0xa5; 32]) },
            )]),
        },
        bytes: 2_300_000,
        selected_from: Some(1200),
        info: CollectionInfo {
            key: vec!["/id".into()],
            vector_info: map([(
                "text",
                VectorInfo { dim: Some(384), element: ElementType::F32, distance: some("cosine") },
            )]),
            model: some("all-MiniLM-L6-v2"),
            fields: FieldMapping {
                project: some("/project"),
                category: some("/category"),
                tags: some("/tags"),
                created_at: some("/created_at"),
                updated_at: some("/updated_at"),
                title: some("/title"),
                content: some("/content"),
                model: some("/model"),
                other: map([("language", "/language".into())]),
            },
            metadata: map([("alias", json!("live"))]),
        },
        statistics: map([("documents", 76)]),
        extra: Metadata::new(),
    };
    let vectors = StoreManifest {
        kind: "memory".into(),
        engine: "memory".into(),
        parts: 3,
        bytes: 2_300_000,
        collections: map([("passages", passages)]),
        window: TimeWindow { start: at(0), end: at(2) },
        ..StoreManifest::default()
    };
    let uploads = StoreManifest {
        kind: "files".into(),
        engine: "files".into(),
        missing: true,
        window: TimeWindow { start: at(2), end: at(2) },
        ..StoreManifest::default()
    };
    Manifest {
        format,
        id,
        created,
        finished: at(2),
        producer,
        application,
        description,
        data_schema_version: some("7"),
        codec: Codec::Gzip,
        encryption: some("age"),
        system: Some(SystemInfo { os: "linux".into(), arch: "x86_64".into() }),
        partial: true,
        selection: vec!["vectors/passages: project=docs".into()],
        consistency: Consistency::PerStore,
        stores: map([("state", state), ("vectors", vectors), ("uploads", uploads)]),
        config: vec!["host".into()],
        notices: vec![StoreNotice {
            store: "uploads".into(),
            notice: Notice {
                kind: NoticeKind::StoreMissing,
                collection: String::new(),
                subject: "uploads".into(),
                detail: "the folder does not exist".into(),
            },
        }],
        notice_count: 1,
        references: vec![
            ReferenceCount {
                from: ReferenceEnd::field("state", "notes", "/passage"),
                to: ReferenceEnd::key("vectors", "passages"),
                required: true,
                values: 974,
                dangling: Some(7),
                examples: vec!["41".into(), "\"draft\"".into()],
                unchecked: None,
                extra: Metadata::new(),
            },
            ReferenceCount {
                from: ReferenceEnd::field("vectors", "passages", "/file"),
                to: ReferenceEnd::key("uploads", "root"),
                required: false,
                values: 76,
                dangling: None,
                examples: Vec::new(),
                unchecked: some("uploads/root: the store could not be reached"),
                extra: Metadata::new(),
            },
        ],
        statistics: map([("entities", 52)]),
        metadata: map([("host", json!({"release": "nightly", "shards": [1, 2]}))]),
        index: IndexFacts {
            parts: 4,
            bytes: 2_308_192,
            tar_size: 2_322_432,
            pages: vec![PageRef {
                offset: 1_900_000,
                size: 400,
                tar_offset: 2_321_408,
                tar_size: 1024,
                sha256: Sha256Digest::of(b"the page's compressed bytes"),
            }],
        },
        extra,
    }
}

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// `UPDATE_DOCS=1` writes the examples anew.
fn is_documented(name: &str, written: &[u8]) {
    let path = docs(name);
    let pretty = |text: &[u8]| {
        let value: Value = serde_json::from_slice(text).unwrap();
        format!("{value:#}\n")
    };
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, pretty(written)).unwrap();
    }
    let documented = std::fs::read(&path).unwrap();
    assert_eq!(pretty(written), String::from_utf8(documented).unwrap(), "UPDATE_DOCS=1 writes it");
}

#[test]
fn the_documented_examples_are_what_is_written() {
    is_documented("preamble-v1.example.json", &preamble().to_json().unwrap());
    is_documented("manifest-v1.example.json", &manifest().to_json().unwrap());
}

#[test]
fn what_is_written_reads_back() {
    let text = preamble().to_json().unwrap();
    assert_eq!(Preamble::from_json(&text).unwrap(), preamble());
    let text = manifest().to_json().unwrap();
    assert_eq!(Manifest::from_json(&text).unwrap(), manifest());
    assert_eq!(text.last(), Some(&b'\n'));
}

#[test]
fn a_selection_is_not_all_of_a_store_and_what_cannot_be_read_is_none() {
    let mut manifest = manifest();
    manifest.selection = Vec::new();
    assert!(manifest.asked_for_all_of("vectors"));
    manifest.selection = vec!["store=state".into(), "vectors/passages: project=docs".into()];
    assert!(manifest.asked_for_all_of("state") && !manifest.asked_for_all_of("vectors"));
    manifest.selection = vec!["state sounds-like stat".into()];
    assert!(!manifest.asked_for_all_of("state"));
}

#[test]
fn fields_are_set_and_found_by_name() {
    let value =
        serde_json::to_value(&manifest().stores["vectors"].collections["passages"].info.fields);
    let written = value.unwrap();
    let mut fields = FieldMapping::default();
    for (name, pointer) in written.as_object().unwrap() {
        assert_eq!(fields.get(name), None);
        fields.set(name, pointer.as_str().unwrap());
        assert_eq!(fields.get(name), pointer.as_str());
    }
    assert_eq!(serde_json::to_value(&fields).unwrap(), written);
}

#[test]
fn unknown_members_survive() {
    let mut value: Value = serde_json::from_slice(&manifest().to_json().unwrap()).unwrap();
    let unknown = json!({"a": [1, 2.5, null], "$type": "x"});
    value["later"] = unknown.clone();
    value["stores"]["state"]["later"] = unknown.clone();
    value["stores"]["vectors"]["collections"]["passages"]["later"] = unknown.clone();
    value["stores"]["vectors"]["collections"]["passages"]["fields"]["later"] = json!("/later");
    let read = Manifest::from_json(value.to_string().as_bytes()).unwrap();
    assert_eq!(read.extra["later"], unknown);
    let written: Value = serde_json::from_slice(&read.to_json().unwrap()).unwrap();
    assert_eq!(written, value);

    let mut value: Value = serde_json::from_slice(&preamble().to_json().unwrap()).unwrap();
    value["later"] = unknown;
    let read = Preamble::from_json(value.to_string().as_bytes()).unwrap();
    let written: Value = serde_json::from_slice(&read.to_json().unwrap()).unwrap();
    assert_eq!(written, value);
}

#[test]
fn a_name_that_stands_twice_is_refused_at_every_level() {
    let text = String::from_utf8(manifest().to_json().unwrap()).unwrap();
    for name in [r#""format":"#, r#""kind":"#, r#""records":"#, r#""journal_mode":"#] {
        assert!(text.contains(name), "{name}");
        let twice = text.replacen(name, &format!("{name}0,{name}"), 1);
        let error = Manifest::from_json(twice.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}");
        assert!(error.report().contains("twice"), "{}", error.report());
    }
}

#[test]
fn an_unknown_major_version_is_refused_by_name() {
    for (format, kind, says) in [
        (json!(2), ErrorKind::UnknownVersion, "has format 2, this build reads format 1"),
        (json!(0), ErrorKind::UnknownVersion, "has format 0"),
        (json!("1"), ErrorKind::Corrupt, "names no format"),
        (json!(null), ErrorKind::Corrupt, "names no format"),
    ] {
        // Whatever else a later format holds.
        let text = json!({"format": format, "stores": "elsewhere"}).to_string();
        for error in [
            Manifest::from_json(text.as_bytes()).unwrap_err(),
            Preamble::from_json(text.as_bytes()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), kind);
            assert!(error.report().contains(says), "{}", error.report());
        }
    }
}

#[test]
fn text_that_is_no_manifest_is_corrupt() {
    for bad in ["", "[]", "{}", "{\"format\":1}", "{\"format\":1", "\u{feff}{}"] {
        let error = Manifest::from_json(bad.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad:?}");
    }
}

fn text() -> impl Strategy<Value = String> {
    // Any characters, and often the ones that want escaping.
    prop_oneof!["\\PC{0,12}", "[\"\\\\/\\x00-\\x1f\u{2028}é😀]{0,8}"]
}

fn free_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(text(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn named<T: std::fmt::Debug>(
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = BTreeMap<String, T>> {
    proptest::collection::btree_map(text(), of, 0..3)
}

// Members that this version does not know: their names start with a letter that no known one has.
fn unknown() -> impl Strategy<Value = Metadata> {
    proptest::collection::btree_map("X\\PC{0,6}", free_value(), 0..3)
}

fn digest() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn time() -> impl Strategy<Value = Timestamp> {
    (-60_000_000_000_000_000_i64..200_000_000_000_000_000).prop_map(Timestamp::from_micros)
}

prop_compose! {
    fn any_collection()(
        records in any::<u64>(),
        sum in digest(),
        vectors in named((any::<u64>(), digest(), any::<Option<u64>>())),
        model in proptest::option::of(text()),
        title in proptest::option::of(text()),
        statistics in named(any::<u64>()),
        metadata in named(free_value()),
        extra in unknown(),
    ) -> CollectionManifest {
        CollectionManifest {
            tally: Tally {
                records,
                digest: ContentDigest::from_bytes(sum),
                vectors: vectors.iter().map(|(name, (count, digest, _))| {
                    let digest = ContentDigest::from_bytes(*digest);
                    (name.clone(), VectorTally { count: *count, digest })
                }).collect(),
            },
            bytes: records / 2,
            selected_from: records.checked_add(1),
            info: CollectionInfo {
                key: Vec::new(),
                vector_info: vectors.into_iter().map(|(name, (_, _, dim))| {
                    let info = VectorInfo { dim, element: ElementType::F16, distance: None };
                    (name, info)
                }).collect(),
                model,
                fields: FieldMapping { title, ..FieldMapping::default() },
                metadata,
            },
            statistics,
            extra,
        }
    }
}

prop_compose! {
    fn any_store()(
        engine_version in proptest::option::of(text()),
        window in (time(), time()),
        mark in proptest::option::of(text()),
        changed in any::<Option<bool>>(),
        missing in any::<bool>(),
        collections in named(any_collection()),
        blobs in named((any::<u64>(), digest(), any::<Vec<(u64, u64)>>())),
        metadata in named(free_value()),
        extra in unknown(),
    ) -> StoreManifest {
        StoreManifest {
            engine_version,
            window: TimeWindow { start: window.0, end: window.1 },
            mark,
            changed,
            missing,
            collections,
            blobs: blobs.into_iter().map(|(name, (len, digest, masked))| {
                (name, BlobContent { len, digest: Sha256Digest::from_bytes(digest), masked })
            }).collect(),
            metadata,
            extra,
            ..StoreManifest::default()
        }
    }
}

prop_compose! {
    fn any_manifest()(
        id in any::<[u8; 16]>(),
        created in time(),
        description in proptest::option::of(text()),
        partial in any::<bool>(),
        selection in proptest::collection::vec(text(), 0..3),
        stores in named(any_store()),
        config in proptest::collection::vec(text(), 0..3),
        pages in proptest::collection::vec((any::<[u64; 4]>(), digest()), 0..3),
        metadata in named(free_value()),
        extra in unknown(),
    ) -> Manifest {
        Manifest {
            id: ArchiveId::from_bytes(id),
            created,
            description,
            partial,
            selection,
            stores,
            config,
            metadata,
            index: IndexFacts {
                pages: pages.into_iter().map(|([offset, size, tar_offset, tar_size], sha256)| {
                    let sha256 = Sha256Digest::from_bytes(sha256);
                    PageRef { offset, size, tar_offset, tar_size, sha256 }
                }).collect(),
                ..IndexFacts::default()
            },
            extra,
            ..manifest()
        }
    }
}

proptest! {
    #[test]
    fn any_manifest_reads_back_and_writes_the_same_bytes(manifest in any_manifest()) {
        let text = manifest.to_json().unwrap();
        let read = Manifest::from_json(&text).unwrap();
        prop_assert_eq!(read.to_json().unwrap(), text);
        prop_assert_eq!(read, manifest);
    }
}
