//! Two values become one.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::record::tagged::TYPE;

/// Adds what the archive says to what is live. `tags` is the JSON pointer of a list that is
/// a set, whatever its items are.
///
/// Merging the result with the same archive's value again changes nothing.
pub(super) fn merge(live: Value, archived: Value, tags: Option<&str>) -> Value {
    let set = tags == Some("");
    match (live, archived) {
        (live, Value::Null) => live,
        (Value::Array(live), Value::Array(archived)) => lists(live, archived, set).into(),
        (Value::Object(live), Value::Object(archived)) => {
            match (members(live), members(archived)) {
                (Ok(live), Ok(archived)) => object(objects(live, archived, tags)),
                // A tagged value is one value.
                (_, Err(archived)) => archived.into(),
                (Err(_), Ok(archived)) => object(archived),
            }
        }
        (_, archived) => archived,
    }
}

fn objects(
    mut live: Map<String, Value>,
    archived: Map<String, Value>,
    tags: Option<&str>,
) -> Map<String, Value> {
    for (name, theirs) in archived {
        let ours = live.remove(&name).unwrap_or_default();
        let tags = tags.and_then(|pointer| below(pointer, &name));
        live.insert(name, merge(ours, theirs, tags));
    }
    live
}

fn lists(mut live: Vec<Value>, archived: Vec<Value>, set: bool) -> Vec<Value> {
    if archived.is_empty() {
        return live;
    }
    if !(set || words(&live) && words(&archived)) {
        return archived;
    }
    let mut there: HashSet<Value> = live.iter().cloned().collect();
    live.extend(archived.into_iter().filter(|item| there.insert(item.clone())));
    live
}

// Text only and nothing twice: a set, such as tags. Numbers are coordinates or a series.
fn words(items: &[Value]) -> bool {
    let mut seen = HashSet::new();
    items.iter().all(|item| item.as_str().is_some_and(|text| seen.insert(text)))
}

// The members of an object, also of one that is tagged only because it has a member `$type`.
fn members(mut object: Map<String, Value>) -> Result<Map<String, Value>, Map<String, Value>> {
    if !object.contains_key(TYPE) {
        return Ok(object);
    }
    if object.get(TYPE).and_then(Value::as_str) == Some("Map")
        && let Some(Value::Object(_)) = object.get("_value")
        && let Some(Value::Object(inner)) = object.remove("_value")
    {
        return Ok(inner);
    }
    Err(object)
}

fn object(members: Map<String, Value>) -> Value {
    if members.contains_key(TYPE) {
        serde_json::json!({TYPE: "Map", "_value": members})
    } else {
        members.into()
    }
}

// The rest of a JSON pointer below a member, where it leads there.
fn below<'a>(pointer: &'a str, name: &str) -> Option<&'a str> {
    let pointer = pointer.strip_prefix('/')?;
    let end = pointer.find('/').unwrap_or(pointer.len());
    let (first, rest) = pointer.split_at(end);
    (first.replace("~1", "/").replace("~0", "~") == name).then_some(rest)
}
