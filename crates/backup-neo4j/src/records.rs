//! Nodes and relationships as records: keys, references and the order of parallel ones.

use std::collections::BTreeMap;

use backup_core::{
    Error, Result,
    record::{Key, canonical::Writer},
};

use crate::{
    names::Kind,
    options::Neo4jOptions,
    schema::Objects,
    value::{Value, WriteJson, text},
};

/// Which properties name the nodes of a label.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    /// By label, those that the host chose before those of constraints.
    by_label: BTreeMap<String, Vec<(u8, Vec<String>)>>,
    /// By all labels of a node, those that an archive chose; where there are, they alone count.
    archived: BTreeMap<Vec<String>, Vec<String>>,
}

impl Keys {
    /// Those of an archive, by the labels of a collection.
    pub(crate) fn archived(by_labels: BTreeMap<Vec<String>, Vec<String>>) -> Self {
        Self { by_label: BTreeMap::new(), archived: by_labels }
    }

    pub(crate) fn new(objects: &Objects, options: &Neo4jOptions) -> Self {
        let mut by_label: BTreeMap<String, Vec<(u8, Vec<String>)>> = BTreeMap::new();
        for (label, keys) in &options.keys {
            let chosen = keys.iter().map(|properties| (0, properties.clone()));
            by_label.entry(label.clone()).or_default().extend(chosen);
        }
        for constraint in objects.constraints.iter().filter(|object| object.is_key_of_nodes()) {
            for label in &constraint.on {
                let key = (1, constraint.properties.clone());
                by_label.entry(label.clone()).or_default().push(key);
            }
        }
        Self { by_label, archived: BTreeMap::new() }
    }

    /// The properties that name the nodes with these labels; empty where there are none.
    pub(crate) fn of(&self, labels: &[String]) -> Vec<String> {
        if let Some(archived) = self.archived.get(labels) {
            return archived.clone();
        }
        let known = labels.iter().filter_map(|label| Some((label, self.by_label.get(label)?)));
        let all = known.flat_map(|(label, keys)| {
            keys.iter().map(move |(rank, properties)| (rank, properties.len(), label, properties))
        });
        all.min().map(|(.., properties)| properties.clone()).unwrap_or_default()
    }

    /// Every property that is part of some key, in order.
    pub(crate) fn properties(&self) -> Vec<String> {
        let chosen = self.by_label.values().flatten().map(|(_, key)| key);
        let mut all: Vec<_> = chosen.chain(self.archived.values()).flatten().cloned().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The text of a node's key: of its properties where it has all of them, else of its number.
pub(crate) fn node_key<V: WriteJson>(
    properties: &[String],
    id: i64,
    mut value: impl FnMut(&str) -> Option<V>,
) -> Result<String> {
    let mut out = Vec::with_capacity(32);
    let mut json = Writer::new(&mut out);
    let mut found = |name: &String| value(name).filter(|value| !value.is_null());
    match properties {
        [] => return Ok(numbered("Node", id)),
        [one] => match found(one) {
            Some(value) => value.write(&mut json)?,
            None => return Ok(numbered("Node", id)),
        },
        several => {
            json.begin_array()?;
            for name in several {
                match found(name) {
                    Some(value) => value.write(&mut json)?,
                    None => return Ok(numbered("Node", id)),
                }
            }
            json.end_array();
        }
    }
    text(out)
}

fn numbered(what: &str, id: i64) -> String {
    format!(r#"{{"$type":"{what}","_value":"{id}"}}"#)
}

/// The text that names a node in a relationship: its collection and its key.
pub(crate) fn reference(collection: &str, key: &str) -> String {
    let mut out = Vec::with_capacity(collection.len() + key.len() + 8);
    write_reference(&mut out, collection, key);
    String::from_utf8(out).unwrap_or_default()
}

/// Writes what [`reference`] gives.
pub(crate) fn write_reference(out: &mut Vec<u8>, collection: &str, key: &str) {
    let mut json = Writer::new(out);
    // One level: cannot fail.
    let _ = json.begin_array();
    json.string(collection);
    json.canonical_text(key);
    json.end_array();
}

/// The values of the properties that make up a node's key, from its text; none where it is one of
/// other properties, or of none.
pub(crate) fn key_values(properties: &[String], text: &str) -> Option<Vec<Value>> {
    if archived_number(text).is_some() {
        return None;
    }
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    match (properties, &json) {
        ([], _) => None,
        ([_], one) => Some(vec![Value::from_json(one).ok()?]),
        (several, serde_json::Value::Array(parts)) if parts.len() == several.len() => {
            parts.iter().map(|part| Value::from_json(part).ok()).collect()
        }
        _ => None,
    }
}

/// The number in the key of a node that has no other.
pub(crate) fn archived_number(key: &str) -> Option<i64> {
    let text = key.strip_prefix(r#"{"$type":"Node","_value":""#)?.strip_suffix(r#""}"#)?;
    text.parse().ok()
}

/// The value of a relationship's record; all three as canonical text.
pub(crate) fn write_relationship(
    json: &mut Writer<'_>,
    from: &str,
    properties: &str,
    to: &str,
) -> Result<()> {
    json.begin_object()?;
    json.name("from")?;
    json.canonical_text(from);
    json.name("properties")?;
    json.canonical_text(properties);
    json.name("to")?;
    json.canonical_text(to);
    json.end_object();
    Ok(())
}

/// A relationship's key.
pub(crate) fn relationship_key(from: &str, to: &str, number: u64) -> Result<Key> {
    Key::write(|json| {
        json.begin_array()?;
        json.canonical_text(from);
        json.canonical_text(to);
        json.integer(number);
        json.end_array();
        Ok(())
    })
}

/// Where a relationship begins or ends, read back from a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct End {
    /// The node's collection.
    pub(crate) collection: Kind,
    /// The node's key, as canonical text.
    pub(crate) key: String,
}

impl End {
    /// What [`reference`] writes.
    pub(crate) fn reference(&self) -> String {
        reference(&self.collection.name(), &self.key)
    }

    /// Reads what [`reference`] wrote.
    pub(crate) fn from_json(json: &serde_json::Value) -> Result<Self> {
        let odd = || {
            let what = "a relationship does not say between which nodes it is";
            Error::new(backup_core::ErrorKind::Corrupt, what).on(json)
        };
        let [serde_json::Value::String(collection), key] =
            json.as_array().map(Vec::as_slice).ok_or_else(odd)?
        else {
            return Err(odd());
        };
        let collection = Kind::parse(collection)?;
        let key = Key::from_json(&key.to_string())?.as_json().to_owned();
        Ok(Self { collection, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(of: &[(&str, u8, &[&str])]) -> Keys {
        let mut by_label: BTreeMap<String, Vec<(u8, Vec<String>)>> = BTreeMap::new();
        for (label, rank, properties) in of {
            let properties = properties.iter().map(|p| (*p).to_owned()).collect();
            by_label.entry((*label).to_owned()).or_default().push((*rank, properties));
        }
        Keys { by_label, archived: BTreeMap::new() }
    }

    #[test]
    fn the_host_chooses_before_constraints_and_short_keys_before_long_ones() {
        let keys = keys(&[
            ("A", 1, &["x", "y"]),
            ("A", 1, &["z"]),
            ("B", 1, &["a"]),
            ("C", 0, &["p", "q"]),
        ]);
        let of = |labels: &[&str]| {
            keys.of(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["A"]), ["z"]);
        assert_eq!(of(&["A", "B"]), ["z"]);
        assert_eq!(of(&["A", "B", "C"]), ["p", "q"]);
        assert_eq!(of(&["D"]), [""; 0]);
        assert_eq!(keys.properties(), ["a", "p", "q", "x", "y", "z"]);
    }

    #[test]
    fn keys_are_of_properties_or_of_numbers() {
        let (a, b) = (Value::from("a@b"), Value::from(7));
        let key = |properties: &[&str]| {
            let properties: Vec<_> = properties.iter().map(|p| (*p).to_owned()).collect();
            node_key(&properties, 17, |name| match name {
                "a" => Some(&a),
                "b" => Some(&b),
                _ => None,
            })
            .unwrap()
        };
        assert_eq!(key(&["a"]), r#""a@b""#);
        assert_eq!(key(&["a", "b"]), r#"["a@b",7]"#);
        assert_eq!(key(&["a", "c"]), r#"{"$type":"Node","_value":"17"}"#);
        assert_eq!(key(&[]), r#"{"$type":"Node","_value":"17"}"#);
    }

    #[test]
    fn references_read_back() {
        let written = reference("A:`b:c`", r#"["x",1]"#);
        assert_eq!(written, r#"["A:`b:c`",["x",1]]"#);
        let end = End::from_json(&serde_json::from_str(&written).unwrap()).unwrap();
        assert_eq!(end.key, r#"["x",1]"#);
        assert_eq!(end.collection, Kind::nodes(vec!["b:c".to_owned(), "A".to_owned()]));
        for bad in ["1", "[]", r#"["A"]"#, r#"[1,2]"#, r#"["A",1,2]"#, r#"["",1]"#] {
            assert!(End::from_json(&serde_json::from_str(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
