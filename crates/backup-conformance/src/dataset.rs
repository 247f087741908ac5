//! What the kit asks a harness to put into a store.

use std::collections::BTreeMap;

use backup_core::{
    CollectionEnd, EntryKind, EntryPath, FileEntry, Part, Result, Schema, byte_stream,
    manifest::CollectionInfo,
    record::{
        BatchBuilder, Key, RecordBatch, VectorColumn, VectorShape,
        canonical::Writer,
        tagged::{self, Scalar},
    },
};
use bytes::Bytes;

/// Data in no store's own form.
///
/// A harness puts it into its store by the store's own means: a [`Rows`] becomes a table, a
/// collection, keys with a prefix; a [`Tree`] becomes a folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    /// Collections of records; none for a store that can hold neither records nor native
    /// blobs.
    pub collections: Vec<Rows>,
    /// File trees, one for each of the harness's [`roots`](crate::Harness::roots); none for
    /// a store that cannot hold entries.
    pub trees: Vec<Tree>,
}

/// A collection of records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// Its name.
    pub name: String,
    /// Its records, each with another identity; their keys are all scalars of one type or
    /// all composites of one length, and all name the same fields.
    pub rows: Vec<Row>,
}

/// A record, or an element of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// Which element of the record it is, for a store with the capability `elements`.
    pub element: Option<Key>,
    /// Its values. The field [`MARK`] holds text that no other row has; an element has this
    /// field only.
    pub fields: BTreeMap<String, Scalar>,
    /// Its vectors: columns of one row.
    pub vectors: Vec<VectorColumn>,
}

/// The field that tells rows apart.
pub const MARK: &str = "mark";

/// A file tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    /// The root's name.
    pub root: String,
    /// What it holds: a folder comes before what is in it.
    pub items: Vec<Item>,
}

/// A file, folder or link of a [`Tree`].
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its path within the root.
    pub path: EntryPath,
    /// Its permission bits.
    pub mode: u32,
    /// When it was last changed: seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// What it is.
    pub node: Node,
}

/// What an [`Item`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file with these bytes.
    File(Bytes),
    /// A folder.
    Directory,
    /// A link to this target.
    Symlink(Vec<u8>),
}

impl Dataset {
    /// Parts that a store takes whose records are JSON objects and whose schema document is
    /// `{}`: what [`Harness::fill`](crate::Harness::fill) restores by default.
    ///
    /// # Errors
    /// None for the kit's own data.
    pub fn parts(&self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for collection in &self.collections {
            parts.push(Part::Schema(Schema {
                collection: collection.name.clone(),
                document: serde_json::json!({}),
                info: CollectionInfo::default(),
            }));
            for rows in collection.rows.chunks(500) {
                parts.push(Part::Records(batch(&collection.name, rows)?));
            }
            parts.push(end(&collection.name, collection.rows.len()));
        }
        for tree in &self.trees {
            parts.extend(tree.items.iter().map(|item| Part::Entry(item.to_part(&tree.root))));
            parts.push(end(&tree.root, tree.items.len()));
        }
        Ok(parts)
    }
}

impl Rows {
    /// The rows as one batch whose values are JSON objects.
    ///
    /// # Errors
    /// None for the kit's own data.
    pub fn batch(&self) -> Result<RecordBatch> {
        batch(&self.name, &self.rows)
    }
}

impl Row {
    /// Its value as a JSON object, in canonical form.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        let mut text = Vec::new();
        // A map of scalars: its names are in order, its depth is one.
        let written = self.write(&mut Writer::new(&mut text));
        debug_assert!(written.is_ok());
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write(&self, json: &mut Writer<'_>) -> Result<()> {
        // An object that looks like a tagged value is wrapped, so that a tag is always a tag.
        let wrapped = self.fields.contains_key(tagged::TYPE);
        if wrapped {
            json.begin_object()?;
            json.name(tagged::TYPE)?;
            json.string("Map");
            json.name("_value")?;
        }
        json.begin_object()?;
        for (name, value) in &self.fields {
            json.name(name)?;
            write_scalar(json, value);
        }
        json.end_object();
        if wrapped {
            json.end_object();
        }
        Ok(())
    }
}

impl Item {
    fn to_part(&self, root: &str) -> FileEntry {
        let kind = match &self.node {
            Node::File(bytes) => {
                EntryKind::File { len: bytes.len() as u64, body: byte_stream(bytes.clone()) }
            }
            Node::Directory => EntryKind::Directory,
            Node::Symlink(target) => EntryKind::Symlink { target: target.clone() },
        };
        FileEntry {
            root: root.to_owned(),
            path: self.path.clone(),
            mode: self.mode,
            modified: self.modified,
            kind,
        }
    }
}

fn batch(collection: &str, rows: &[Row]) -> Result<RecordBatch> {
    let mut builder = BatchBuilder::new(collection);
    let mut columns = BTreeMap::new();
    for row in rows {
        match &row.element {
            None => builder.push(&row.key, |json| row.write(json))?,
            Some(element) => builder.push_element(&row.key, element, |json| row.write(json))?,
        }
        for vector in &row.vectors {
            let (name, element) = (vector.name(), vector.element());
            let column = *columns.entry(name.to_owned()).or_insert_with(|| match vector.shape() {
                VectorShape::Multi { dim, .. } => builder.multi(name, element, *dim),
                VectorShape::Sparse { .. } => builder.sparse(name, element),
                VectorShape::Dense { dim } => builder.dense(name, element, *dim),
                other => unreachable!("the kit makes no vectors of shape {other:?}"),
            });
            builder.set_sparse(column, vector.sparse_indices(0), vector.row_bytes(0))?;
        }
    }
    builder.finish()
}

fn end(collection: &str, count: usize) -> Part {
    let mut end = CollectionEnd { collection: collection.to_owned(), ..Default::default() };
    end.count = Some(count as u64);
    Part::End(end)
}

/// Writes a scalar in the form that stands in a record.
pub(crate) fn write_scalar(json: &mut Writer<'_>, value: &Scalar) {
    match value {
        Scalar::Null => json.null(),
        Scalar::Bool(b) => json.bool(*b),
        Scalar::Integer(i) => tagged::integer(json, *i),
        Scalar::Float(f) => json.float(*f),
        Scalar::Text(text) => json.string(text),
        Scalar::Bytes(bytes) => tagged::bytes(json, bytes),
    }
}
