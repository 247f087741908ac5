//! One part as the index describes it; its place in the tar follows from what it is.

use serde::{Deserialize, Serialize};

use super::names;
use crate::{
    part::{EntryPath, Metadata, NoticeKind},
    record::{ElementType, tagged},
};

/// One part of an archive, as the index lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartEntry {
    /// Its path in the tar; follows from `kind`.
    pub path: String,
    /// Offset of its header in the tar; follows from the parts before it.
    #[serde(skip)]
    pub offset: u64,
    /// Length of its content.
    pub size: u64,
    /// What it is.
    #[serde(flatten)]
    pub kind: PartKind,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartKind {
    /// `backup.json`
    Preamble {},
    /// `stores/<store>/<collection>/schema.json`
    Schema {
        /// The store.
        store: String,
        /// The collection.
        collection: String,
    },
    /// `stores/<store>/<collection>/<partition>-<number>.jsonl`
    Records {
        /// The store.
        store: String,
        /// The collection.
        collection: String,
        /// The partition that gave it.
        partition: String,
        /// Counts from 0 within collection and partition.
        number: u64,
        /// Number of lines.
        records: u64,
    },
    /// `stores/<store>/<collection>/<partition>-<number>.<vector>.npy`, one array of a vector
    /// column of the batch before it.
    Vector {
        /// The store.
        store: String,
        /// The collection.
        collection: String,
        /// The partition that gave it.
        partition: String,
        /// The number of its batch.
        number: u64,
        /// The vector's name.
        vector: String,
        /// Which array of the column.
        role: VectorRole,
        /// The column's element type.
        element: ElementType,
        /// Lengths of the array, one or two.
        shape: Vec<u64>,
    },
    /// `stores/<store>/_native/<name>`
    Blob {
        /// The store.
        store: String,
        /// The blob's name.
        name: String,
        /// Byte ranges that count as zero in its digest.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        masked: Vec<(u64, u64)>,
        /// What the adapter needs at restore.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        metadata: Metadata,
    },
    /// `files/<store>/<root>/<path>`
    Entry {
        /// The store.
        store: String,
        /// The root.
        root: String,
        /// The exact path within the root.
        #[serde(with = "wire_bytes")]
        name: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Modification time: seconds and nanoseconds.
        modified: (i64, u32),
        /// File, folder or link.
        entry: EntryHead,
        /// What went wrong with its length while it was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<NoticeKind>,
    },
    /// `config/<name>.json`
    Config {
        /// Its name.
        name: String,
    },
    /// `checksums.sha256`
    Checksums {},
}

/// What a file entry is, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EntryHead {
    /// A regular file; its length is the part's.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink(#[serde(with = "wire_bytes")] Vec<u8>),
}

/// Which array of a vector column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VectorRole {
    /// Dense values, `n × dim`.
    Dense,
    /// Multi-vector values, `total × dim`.
    Multi,
    /// Sparse values, `total`.
    Sparse,
    /// Row borders of a multi-vector or sparse column: `n + 1` of `u64`.
    Offsets,
    /// Places of sparse values: `total` of `u32`.
    Indices,
    /// Which records have the vector: `n` of `bool`.
    Present,
}

impl VectorRole {
    pub(super) const fn is_values(self) -> bool {
        matches!(self, Self::Dense | Self::Multi | Self::Sparse)
    }
}

impl PartKind {
    /// The part's path in the tar.
    #[must_use]
    pub fn path(&self) -> String {
        let folder = names::folder;
        match self {
            Self::Preamble {} => "backup.json".into(),
            Self::Schema { store, collection } => {
                format!("stores/{}/{}/schema.json", folder(store), folder(collection))
            }
            Self::Records { store, collection, partition, number, .. } => format!(
                "stores/{}/{}/{}-{number:06}.jsonl",
                folder(store),
                folder(collection),
                names::stem(partition)
            ),
            Self::Vector { store, collection, partition, number, vector, role, .. } => format!(
                "stores/{}/{}/{}-{number:06}.{}{}.npy",
                folder(store),
                folder(collection),
                names::stem(partition),
                names::stem(vector),
                match role {
                    VectorRole::Dense | VectorRole::Multi | VectorRole::Sparse => "",
                    VectorRole::Offsets => ".offsets",
                    VectorRole::Indices => ".indices",
                    VectorRole::Present => ".present",
                }
            ),
            Self::Blob { store, name, .. } => {
                format!("stores/{}/_native/{}", folder(store), names::file(name.as_bytes()))
            }
            Self::Entry { store, root, name, .. } => {
                // An index that lies about a path gives a path that matches nothing.
                let inner = EntryPath::new(name).map(|path| names::path(&path));
                format!("files/{}/{}/{}", folder(store), folder(root), inner.unwrap_or_default())
            }
            Self::Config { name } => format!("config/{}.json", names::folder(name)),
            Self::Checksums {} => "checksums.sha256".into(),
        }
    }

    /// The store that the part belongs to.
    #[must_use]
    pub fn store(&self) -> Option<&str> {
        match self {
            Self::Schema { store, .. }
            | Self::Records { store, .. }
            | Self::Vector { store, .. }
            | Self::Blob { store, .. }
            | Self::Entry { store, .. } => Some(store),
            _ => None,
        }
    }

    /// Byte ranges that count as zero in a blob's digest.
    pub(super) fn masked(&self) -> &[(u64, u64)] {
        match self {
            Self::Blob { masked, .. } => masked,
            _ => &[],
        }
    }

    /// The collection or root that the part belongs to.
    #[must_use]
    pub fn collection(&self) -> Option<&str> {
        match self {
            Self::Schema { collection, .. }
            | Self::Records { collection, .. }
            | Self::Vector { collection, .. } => Some(collection),
            Self::Entry { root, .. } => Some(root),
            _ => None,
        }
    }
}

/// Bytes that are text where they are UTF-8, and tagged Base64 where not.
mod wire_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
    use serde_json::Value;

    use super::tagged::{self, Scalar};
    use crate::record::canonical::Writer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return s.serialize_str(text);
        }
        let mut out = Vec::new();
        tagged::bytes(&mut Writer::new(&mut out), bytes);
        serde_json::from_slice::<Value>(&out).map_err(serde::ser::Error::custom)?.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        match tagged::scalar(&Value::deserialize(d)?) {
            Some(Scalar::Text(text)) => Ok(text.into_bytes()),
            // One form for one value.
            Some(Scalar::Bytes(bytes)) if std::str::from_utf8(&bytes).is_err() => Ok(bytes),
            _ => Err(D::Error::custom("not a path")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_and_its_path_follows_from_its_kind() {
        let entry = |name: &[u8]| PartKind::Entry {
            store: "up".into(),
            root: "_r".into(),
            name: name.to_vec(),
            mode: 0o644,
            modified: (-1, 5),
            entry: EntryHead::Symlink(b"\xff".to_vec()),
            fault: None,
        };
        for name in [&b"a/b.txt"[..], b"\xfe/x"] {
            let text = serde_json::to_string(&entry(name)).unwrap();
            assert_eq!(serde_json::from_str::<PartKind>(&text).unwrap(), entry(name));
        }
        assert_eq!(entry(b"\xfe/x").path(), "files/up/%5Fr/%FE/x");
        // A path that leads out has no place.
        assert_eq!(entry(b"../x").path(), "files/up/%5Fr/");
    }
}
