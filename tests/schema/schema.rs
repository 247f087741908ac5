//! The published schemas against what is written.
//!
//! The examples in `docs/` are what backup-core writes for values with every member set (a test
//! there keeps them so). Here they are held against the schemas, both ways: the schema takes
//! the example, and names the same members as it, no more and no fewer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::Path,
};

use backup_kit::{BackupOptions, MemoryStore, Stores};
use futures::executor::block_on;
use serde_json::{Value, json};

fn load(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"))
}

fn pair(name: &str) -> (Value, Value) {
    (load(&format!("{name}-v1.schema.json")), load(&format!("{name}-v1.example.json")))
}

fn faults(schema: &Value, instance: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::new(schema).expect("a schema");
    validator.iter_errors(instance).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn the_schemas_are_schemas_and_take_the_examples() {
    for name in ["preamble", "manifest"] {
        let (schema, example) = pair(name);
        if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
            panic!("{name}: {error}");
        }
        assert_eq!(faults(&schema, &example), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_schemas_take_what_a_backup_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, gone) = (MemoryStore::new(), MemoryStore::new());
    store.insert_with_vector("notes", 1, json!({"title": "hello"}), "text", &[0.5, 1.0]).unwrap();
    store.put_blob("native.db", &b"snapshot"[..]);
    gone.unreachable();
    let stores = Stores::new("docs", "1.0.0")
        .with("state", store)
        .optional("gone", gone)
        .config("host", json!({"model": "m"}))
        .statistic("documents", 1)
        .metadata("release", json!("nightly"));
    let path = folder.path().join("a.tar.gz");
    let options = BackupOptions::new().description("d").system_info(true);
    let report = block_on(stores.backup_to_file(&path, &options)).unwrap();
    assert!(!report.outcome.is_complete());

    let mut found = 0;
    let stream = flate2::read::GzDecoder::new(File::open(&path).unwrap());
    for entry in tar::Archive::new(stream).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = match &*entry.path_bytes() {
            b"backup.json" => "preamble",
            b"manifest.json" => "manifest",
            _ => continue,
        };
        found += 1;
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let written = serde_json::from_str(&text).unwrap();
        assert_eq!(faults(&pair(name).0, &written), Vec::<String>::new(), "{text}");
    }
    assert_eq!(found, 2);
}

#[test]
fn the_schemas_refuse_what_is_wrong() {
    let (schema, example) = pair("manifest");
    for (place, wrong) in [
        ("/format", json!(2)),
        ("/id", json!("019B7D1C-8C22-7BBB-8000-0123456789AB")),
        ("/created", json!("2026-01-02 03:04:05")),
        ("/codec", json!("lzma")),
        ("/stores/state/bytes", json!(-1)),
        ("/stores/state/blobs/main.db/masked/0", json!([1, 2, 3])),
        ("/stores/vectors/collections/passages/digest", json!("5a")),
        ("/stores/vectors/collections/passages/fields/language", json!(7)),
        ("/notices/0/kind", json!("unknown")),
        ("/index/pages/0/sha256", json!(null)),
    ] {
        let mut changed = example.clone();
        *changed.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = wrong;
        let faults = faults(&schema, &changed);
        assert!(faults.iter().any(|fault| fault.starts_with(place)), "{place}: {faults:?}");
    }
}

#[test]
fn what_a_later_version_adds_is_allowed() {
    let (schema, mut example) = pair("manifest");
    for place in [
        "",
        "/producer",
        "/stores/state",
        "/stores/state/window",
        "/stores/state/blobs/main.db",
        "/stores/vectors/collections/passages",
        "/stores/vectors/collections/passages/vectors/text",
        "/notices/0",
        "/index",
        "/index/pages/0",
    ] {
        let object = example.pointer_mut(place).unwrap_or_else(|| panic!("{place}"));
        object["later"] = json!({"any": ["thing"]});
    }
    assert_eq!(faults(&schema, &example), Vec::<String>::new());
}

// What the schema says of an object, and what instances of it hold, by its place in the schema.
#[derive(Default)]
struct Members {
    named: BTreeSet<String>,
    seen: BTreeSet<String>,
}

fn collect(
    root: &Value,
    schema: &Value,
    place: &str,
    value: &Value,
    all: &mut BTreeMap<String, Members>,
) {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let target = target.strip_prefix('#').expect("within the document");
        let schema = root.pointer(target).unwrap_or_else(|| panic!("{target}"));
        return collect(root, schema, target, value, all);
    }
    match value {
        Value::Array(items) => {
            if let Some(schema) = schema.get("items").filter(|s| s.is_object()) {
                let place = format!("{place}/items");
                items.iter().for_each(|item| collect(root, schema, &place, item, all));
            }
        }
        Value::Object(members) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let others = schema.get("additionalProperties");
            for (name, value) in members {
                let known = properties.and_then(|p| p.get(name)).or(others);
                if let Some(known) = known {
                    collect(root, known, &format!("{place}/{name}"), value, all);
                }
            }
            if let Some(properties) = properties {
                let entry = all.entry(place.to_owned()).or_default();
                entry.named.extend(properties.keys().cloned());
                let seen = members
                    .keys()
                    .filter(|name| others.is_none() || properties.contains_key(*name));
                entry.seen.extend(seen.cloned());
            }
        }
        _ => {}
    }
}

#[test]
fn schema_and_example_name_the_same_members() {
    for (name, objects) in [("preamble", 3), ("manifest", 16)] {
        let (schema, example) = pair(name);
        let mut all = BTreeMap::new();
        collect(&schema, &schema, "", &example, &mut all);
        for (place, members) in &all {
            assert_eq!(members.named, members.seen, "{name}: {place}");
        }
        assert_eq!(all.len(), objects, "{name}: {:?}", all.keys());
    }
}

#[test]
fn everything_in_the_schemas_is_described() {
    fn check(root: &Value, place: &str, schema: &Value, bare: &mut Vec<String>) {
        let target = schema.get("$ref").and_then(Value::as_str);
        let target = target.and_then(|t| root.pointer(t.trim_start_matches('#')));
        let says = |s: &Value| s.get("description").is_some();
        if !says(schema) && !target.is_some_and(says) {
            bare.push(place.to_owned());
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, inner) in properties {
                check(root, &format!("{place}/{name}"), inner, bare);
            }
        }
    }
    for name in ["preamble", "manifest"] {
        let (schema, _) = pair(name);
        let mut bare = Vec::new();
        check(&schema, "", &schema, &mut bare);
        for (name, inner) in schema["$defs"].as_object().expect("definitions") {
            // A bare number gets its meaning where it is used.
            if name != "count" {
                check(&schema, name, inner, &mut bare);
            }
        }
        assert_eq!(bare, Vec::<String>::new(), "{name}");
    }
}
