//! The shape of what `--json` says: scripts rely on it.

use serde_json::{Value, json};

use crate::world::World;

/// Replaces what differs from run to run by what kind of thing it is.
fn settle(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(members) => members.values_mut().for_each(settle),
        Value::Number(_) => *value = json!(0),
        Value::String(text) => {
            let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
            if text.len() == 64 && hex(text) {
                *text = "<sha256>".into();
            } else if text.len() == 36 && hex(text) {
                *text = "<id>".into();
            } else if text.len() > 18 && text.ends_with('Z') && text.contains('T') {
                *text = "<time>".into();
            } else if text.ends_with(".tar.gz") {
                *text = "<path>".into();
            }
        }
        _ => {}
    }
}

fn settled(mut document: Value) -> Value {
    settle(&mut document);
    document
}

#[test]
fn documents_keep_their_shape() {
    let world = World::new();
    let created = settled(world.json(0, &["create", "--description", "d"]));
    assert_eq!(
        created,
        json!({
            "schema": 0, "path": "<path>", "id": "<id>", "size": 0, "sha256": "<sha256>",
            "partial": false, "consistency": "fuzzy", "notice_count": 0, "notices": [],
            "stores": ["state", "uploads"], "missing": [], "records": 0, "selection": [], "references": [],
        })
    );
    let listed = settled(world.json(0, &["list"]));
    assert_eq!(
        listed,
        json!({
            "schema": 0,
            "archives": [{
                "path": "<path>", "id": "<id>", "created": "<time>", "size": 0, "partial": false,
                "description": "d", "application": {"name": "docs-memory", "version": "1.4.0"},
                "stores": ["state", "uploads"], "selection": [],
            }],
            "damaged": [],
        })
    );
    let valid = settled(world.json(0, &["validate", "latest"]));
    assert_eq!(
        valid,
        json!({
            "schema": 0, "path": "<path>", "id": "<id>", "valid": true, "full": true, "parts": 0,
            "bytes": 0, "records": 0, "partial": false, "proves": "integrity, not authenticity",
        })
    );
    let quick = world.json(0, &["validate", "latest", "--quick"]);
    assert_eq!(quick["full"], false);
    let extracted = settled(world.json(0, &["extract", "latest", "--to", "x"]));
    assert_eq!(
        extracted,
        json!({"schema": 0, "path": "<path>", "id": "<id>", "to": "x", "parts": 0, "bytes": 0})
    );
    let restored = world.json(0, &["restore", "latest", "--yes"]);
    assert_eq!(restored["restored"], true);
    assert_eq!(restored["report"]["stores"].as_array().unwrap().len(), 2);
    let resumed = world.json(0, &["resume"]);
    assert_eq!(resumed, json!({"schema": 1, "restored": null, "resumed": false}));
}

#[test]
fn events_are_lines_on_standard_error() {
    let world = World::new();
    let ran = world.run(&["create", "--json"]);
    ran.document();
    let events: Vec<Value> =
        ran.err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"backup-started"), "{names:?}");
    assert_eq!(names.last(), Some(&"backup-finished"), "{names:?}");
    for expected in ["pinned", "part", "store-read"] {
        assert!(names.contains(&expected), "{expected}: {names:?}");
    }
}

#[test]
fn nothing_is_coloured_or_drawn_where_nobody_looks() {
    let world = World::new();
    for args in [&["create"][..], &["list"], &["info", "latest"], &["validate", "latest"]] {
        let ran = world.run(args);
        assert!(!(ran.out + &ran.err).contains('\x1b'), "{args:?}");
    }
    let quiet = world.run(&["create", "--quiet"]);
    assert_eq!(quiet.err, "");
}
