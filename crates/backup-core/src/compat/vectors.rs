//! Vectors of an archive against those that an application uses now.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorKind},
    manifest::{CollectionInfo, VectorInfo},
};

/// What a restore changes of the vectors of one collection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VectorChanges {
    /// Vectors that are left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left_out: BTreeSet<String>,
    /// Vectors that are made again, as they will be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub made: BTreeMap<String, VectorInfo>,
    /// The model of those that are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl VectorChanges {
    /// What the manifest would say of the collection afterwards.
    pub(crate) fn apply(&self, info: &mut CollectionInfo) {
        info.vector_info.retain(|name, _| !self.left_out.contains(name));
        info.vector_info.extend(self.made.clone());
        if self.model.is_some() {
            info.model.clone_from(&self.model);
        }
    }
}

/// How the vectors of a collection that is restored differ from those of the live one: what an
/// adapter asks in [`prepare`](crate::Sink::prepare).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VectorDifferences {
    /// Vectors that only one of the two has, or that have another dimension, distance or element
    /// type.
    pub forms: Vec<String>,
    /// Another model, where both are known.
    pub model: Option<String>,
}

impl VectorDifferences {
    /// `restored` is what the collection is to be; a vector in `left_out` is not missed.
    #[must_use]
    pub fn new(
        restored: &CollectionInfo,
        live: &CollectionInfo,
        left_out: &BTreeSet<String>,
    ) -> Self {
        let mut forms = Vec::new();
        for (name, vector) in &restored.vector_info {
            match live.vector_info.get(name) {
                Some(live) if live == vector => {}
                Some(live) => forms.push(format!(
                    "vector {name:?} has {} in the archive and {} in the collection",
                    shown(vector),
                    shown(live)
                )),
                None => forms.push(format!("the collection has no vector {name:?}")),
            }
        }
        let missing = live
            .vector_info
            .keys()
            .filter(|name| !restored.vector_info.contains_key(*name) && !left_out.contains(*name));
        forms.extend(missing.map(|name| format!("the archive has no vector {name:?}")));
        let model = match (&restored.model, &live.model) {
            (Some(restored), Some(live)) if restored != live => {
                Some(format!("the model is {restored} in the archive and {live} in the collection"))
            }
            _ => None,
        };
        Self { forms, model }
    }

    /// Whether the vectors are of the same form and, as far as is known, of the same model.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty() && self.model.is_none()
    }

    /// What is said where such vectors are not taken: what differs, and the ways out.
    #[must_use]
    pub fn refusal(&self, collection: &str) -> Error {
        let all: Vec<_> = self.forms.iter().chain(&self.model).map(String::as_str).collect();
        let what = "the archive's vectors are not those that the application uses now";
        Error::new(ErrorKind::Incompatible, what)
            .on(format!("{collection}: {}", all.join("; ")))
            .advise(
                "restore beside it, under another name (`map`); or leave that vector out \
                 (`drop_vector`); or make it again of the texts (`embed`)",
            )
    }
}

fn shown(vector: &VectorInfo) -> String {
    let shape = match vector.dim {
        Some(dim) => format!("dimension {dim}"),
        None => "sparse values".to_owned(),
    };
    let distance = vector.distance.as_deref().map(|name| format!(", {name}")).unwrap_or_default();
    format!("{shape}{distance}, {}", vector.element.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ElementType;

    fn info(vectors: &[(&str, u64)], model: Option<&str>) -> CollectionInfo {
        let vector = |(name, dim): &(&str, u64)| {
            let vector = VectorInfo {
                dim: (*dim > 0).then_some(*dim),
                element: ElementType::F32,
                distance: (*dim > 0).then(|| "cosine".to_owned()),
            };
            ((*name).to_owned(), vector)
        };
        CollectionInfo {
            vector_info: vectors.iter().map(vector).collect(),
            model: model.map(str::to_owned),
            ..CollectionInfo::default()
        }
    }

    #[test]
    fn each_difference_is_named_once() {
        let found = |restored: &CollectionInfo, live: &CollectionInfo, left_out: &[&str]| {
            let left_out = left_out.iter().map(|name| (*name).to_owned()).collect();
            let VectorDifferences { forms, model } =
                VectorDifferences::new(restored, live, &left_out);
            forms.into_iter().chain(model).collect::<Vec<_>>()
        };
        let live = info(&[("a", 4), ("s", 0)], Some("m"));
        assert!(found(&live, &live, &[]).is_empty());
        assert!(found(&info(&[("a", 4), ("s", 0)], None), &live, &[]).is_empty());
        assert_eq!(
            found(&info(&[("a", 8), ("b", 4)], Some("n")), &live, &[]),
            [
                "vector \"a\" has dimension 8, cosine, f32 in the archive and dimension 4, cosine, \
                 f32 in the collection",
                "the collection has no vector \"b\"",
                "the archive has no vector \"s\"",
                "the model is n in the archive and m in the collection",
            ]
        );
        assert!(found(&info(&[("a", 4)], None), &live, &["s"]).is_empty());
        let refusal = VectorDifferences::new(&info(&[], None), &live, &BTreeSet::new());
        assert!(!refusal.is_empty());
        let refusal = refusal.refusal("docs");
        assert_eq!(refusal.kind(), ErrorKind::Incompatible);
        assert!(refusal.to_string().contains("docs: the archive has no vector \"a\""));
        for way in ["map", "drop_vector", "embed"] {
            assert!(refusal.advice().contains(way), "{}", refusal.advice());
        }
    }
}
