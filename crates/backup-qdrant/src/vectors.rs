//! Other vectors than those of the archive: left out, made again, or live.

use std::collections::BTreeSet;

use backup_core::{
    Error, ErrorKind, Result, VectorChanges, VectorDifferences,
    manifest::{CollectionInfo, VectorInfo},
    record::ElementType,
};
use serde_json::{Map, Value, json};

use crate::schema::{Document, MODEL};

/// Brings the document of a collection to the vectors that it will have.
pub(crate) fn revise(document: &mut Value, changes: &VectorChanges) -> Result<()> {
    let config = object(document).entry("config").or_insert(Value::Null);
    let params = object(object(config).entry("params").or_insert(Value::Null));
    let sparse = params.get_mut("sparse_vectors").and_then(Value::as_object_mut);
    if let Some(sparse) = sparse {
        sparse.retain(|name, _| !changes.left_out.contains(name));
    }
    let vectors = object(params.entry("vectors").or_insert_with(|| json!({})));
    let unnamed = vectors.get("size").is_some_and(Value::is_u64);
    if unnamed {
        if changes.left_out.contains("") {
            vectors.clear();
        }
    } else {
        vectors.retain(|name, _| !changes.left_out.contains(name));
    }
    for (name, made) in &changes.made {
        let alone = unnamed || vectors.is_empty();
        match (name.as_str(), unnamed) {
            ("", _) if alone => set(vectors, made),
            ("", _) | (_, true) => Err(Error::new(
                ErrorKind::Unsupported,
                "a collection has either one vector without a name or vectors with names",
            )),
            _ => set(object(vectors.entry(name.as_str()).or_insert_with(|| json!({}))), made),
        }
        .map_err(|e| e.on(format!("vector {name:?}")))?;
    }
    let metadata = document["config"].get_mut("metadata").and_then(Value::as_object_mut);
    if let (Some(metadata), Some(model)) = (metadata, &changes.model) {
        let names = MODEL.iter().find(|name| metadata.get(**name).is_some_and(Value::is_string));
        if let Some(name) = names {
            metadata.insert((*name).to_owned(), model.as_str().into());
        }
    }
    Ok(())
}

fn set(vector: &mut Map<String, Value>, made: &VectorInfo) -> Result<()> {
    if vector.get("multivector_config").is_some_and(|config| !config.is_null()) {
        let what = "an embedder makes one vector of a text, and this one has several rows";
        return Err(Error::new(ErrorKind::Unsupported, what).advise("leave that vector out"));
    }
    let distance = match made.distance.as_deref().unwrap_or("cosine") {
        name if name.eq_ignore_ascii_case("cosine") => "Cosine",
        name if name.eq_ignore_ascii_case("dot") => "Dot",
        name if name.eq_ignore_ascii_case("euclid") => "Euclid",
        name if name.eq_ignore_ascii_case("manhattan") => "Manhattan",
        name => {
            let what = "Qdrant knows the distances cosine, dot, euclid and manhattan";
            return Err(Error::new(ErrorKind::Unsupported, what).on(name));
        }
    };
    vector.insert("size".to_owned(), json!(made.dim));
    vector.insert("distance".to_owned(), distance.into());
    if made.element != ElementType::F32 {
        let datatype = if made.element == ElementType::F16 { "float16" } else { "uint8" };
        vector.insert("datatype".to_owned(), datatype.into());
    }
    Ok(())
}

// What is not an object becomes an empty one.
fn object(json: &mut Value) -> &mut Map<String, Value> {
    if !json.is_object() {
        *json = json!({});
    }
    match json {
        Value::Object(members) => members,
        _ => unreachable!("made an object above"),
    }
}

/// What a host lets a restore do to a live collection.
pub(crate) struct Vectors<'a> {
    /// Whether others than its own may come.
    pub(crate) others: bool,
    /// Points are added: then they have to fit all the same, and only the model may be another.
    pub(crate) adds: bool,
    /// Vectors that are left out and not missed.
    pub(crate) left_out: &'a BTreeSet<String>,
}

impl Vectors<'_> {
    /// Refuses vectors that the application would not find its way in.
    pub(crate) fn check(
        &self,
        collection: &str,
        restored: &CollectionInfo,
        live: &CollectionInfo,
    ) -> Result<()> {
        self.judge(collection, VectorDifferences::new(restored, live, self.left_out))
    }

    /// The same, with what a manifest does not say: whether a vector has several rows.
    pub(crate) fn check_documents(
        &self,
        collection: &str,
        (restored, model): (&Document, Option<&str>),
        (live, live_model): (&Document, Option<&str>),
    ) -> Result<()> {
        let mut differ =
            VectorDifferences::new(&restored.info(model)?, &live.info(live_model)?, self.left_out);
        let live = live.forms()?;
        for form in restored.forms()? {
            let live = live.iter().find(|live| live.name == form.name);
            if live.is_some_and(|live| live.is_multi() != form.is_multi()) {
                let name = &form.name;
                differ.forms.push(format!("vector {name:?} has several rows on one side only"));
            }
        }
        self.judge(collection, differ)
    }

    fn judge(&self, collection: &str, mut differ: VectorDifferences) -> Result<()> {
        if self.others {
            differ.model = None;
            if !self.adds {
                return Ok(());
            }
        }
        if differ.is_empty() {
            return Ok(());
        }
        let refusal = differ.refusal(collection);
        let accept = if self.adds {
            "only another model is taken as it is, with `accept_other_vectors`"
        } else {
            "or take the archive's vectors as they are, with `accept_other_vectors`"
        };
        let advice = format!("{}; {accept}", refusal.advice());
        Err(refusal.advise(advice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dim: u64, element: ElementType, distance: &str) -> VectorInfo {
        VectorInfo { dim: Some(dim), element, distance: Some(distance.to_owned()) }
    }

    fn changes(left_out: &[&str], made: &[(&str, VectorInfo)]) -> VectorChanges {
        let mut changes = VectorChanges::default();
        changes.left_out = left_out.iter().map(|name| (*name).to_owned()).collect();
        changes.made = made.iter().map(|(n, info)| ((*n).to_owned(), info.clone())).collect();
        changes.model = (!made.is_empty()).then(|| "new".to_owned());
        changes
    }

    fn revised(config: Value, changes: &VectorChanges) -> Result<Value> {
        let mut document = json!({ "config": config });
        revise(&mut document, changes)?;
        Ok(document["config"].clone())
    }

    #[test]
    fn settings_are_those_of_the_vectors_to_come() {
        let named = json!({
            "params": {
                "vectors": {
                    "a": {"size": 4, "distance": "Dot", "hnsw_config": {"m": 8}},
                    "b": {"size": 2, "distance": "Cosine", "datatype": "float16"},
                },
                "sparse_vectors": {"s": {}, "t": {}},
                "shard_number": 2,
            },
            "metadata": {"model": "old", "owner": "me"},
        });
        let all = changes(
            &["b", "s"],
            &[
                ("a", made(8, ElementType::F32, "cosine")),
                ("c", made(3, ElementType::F16, "euclid")),
            ],
        );
        let expected = json!({
            "params": {
                "vectors": {
                    "a": {"size": 8, "distance": "Cosine", "hnsw_config": {"m": 8}},
                    "c": {"size": 3, "distance": "Euclid", "datatype": "float16"},
                },
                "sparse_vectors": {"t": {}},
                "shard_number": 2,
            },
            "metadata": {"model": "new", "owner": "me"},
        });
        assert_eq!(revised(named.clone(), &all).unwrap(), expected);

        let unnamed = json!({"params": {"vectors": {"size": 4, "distance": "Dot"}}});
        let larger = changes(&[], &[("", made(8, ElementType::F32, "manhattan"))]);
        assert_eq!(
            revised(unnamed.clone(), &larger).unwrap()["params"]["vectors"],
            json!({"size": 8, "distance": "Manhattan"})
        );
        let none = revised(unnamed.clone(), &changes(&[""], &[])).unwrap();
        assert_eq!(none["params"]["vectors"], json!({}));
        let named_now = changes(&[], &[("x", made(8, ElementType::F32, "dot"))]);
        assert!(revised(unnamed, &named_now).is_err());
        assert!(revised(named.clone(), &larger).is_err());
        let odd = changes(&[], &[("a", made(8, ElementType::F32, "hyperbolic"))]);
        assert!(revised(named, &odd).is_err());
        let rows = json!({"params": {"vectors": {"a": {
            "size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"},
        }}}});
        let error = revised(rows, &changes(&[], &[("a", made(2, ElementType::F32, "dot"))]));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
        // Whatever an archive holds.
        for hostile in
            [json!(null), json!([]), json!({"params": 1}), json!({"params": {"vectors": []}})]
        {
            revised(hostile, &all).unwrap();
        }
        revise(&mut json!("text"), &all).unwrap();
    }
}
