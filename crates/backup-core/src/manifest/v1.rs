//! Format 1.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    archive::Codec,
    clock::{ArchiveId, Timestamp},
    error::{Error, ErrorKind, Result},
    part::{BlobContent, Content, Metadata, Notice},
    record::{ElementType, Sha256Digest, Tally, canonical},
    select::Selection,
};

/// `backup.json`, the first part: what is known before the first store is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Preamble {
    /// The format's major version: 1.
    pub format: u32,
    /// The archive's identity; every index page repeats it.
    pub id: ArchiveId,
    /// When the backup began.
    pub created: Timestamp,
    /// What wrote the archive.
    pub producer: Producer,
    /// Whose data it is.
    pub application: Application,
    /// What the user said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub extra: Metadata,
}

/// `manifest.json`, the root: everything that `info` shows, and where the index pages are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The format's major version: 1.
    pub format: u32,
    /// The archive's identity.
    pub id: ArchiveId,
    /// When the backup began.
    pub created: Timestamp,
    /// When the last store was read.
    pub finished: Timestamp,
    /// What wrote the archive.
    pub producer: Producer,
    /// Whose data it is.
    pub application: Application,
    /// What the user said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The version of the application's own data schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_schema_version: Option<String>,
    /// How segments are compressed.
    pub codec: Codec,
    /// How the whole is encrypted, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Where it was made, if the host wants that recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemInfo>,
    /// Whether something that was asked for is not in the archive, or is in doubt.
    pub partial: bool,
    /// What of the stores was asked for: [expressions](crate::Selection#as-text), all of which
    /// apply; empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selection: Vec<String>,
    /// Whether all stores show one moment.
    pub consistency: Consistency,
    /// The stores, by name.
    pub stores: BTreeMap<String, StoreManifest>,
    /// Names of the `config/<name>.json` parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<String>,
    /// What did not go as it should: the first thousand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<StoreNotice>,
    /// How many notices there were in all.
    #[serde(default)]
    pub notice_count: u64,
    /// What was counted of the references that the host declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<ReferenceCount>,
    /// Named figures from the host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub statistics: BTreeMap<String, u64>,
    /// Whatever the host adds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: Metadata,
    /// Where the index pages are; filled in by the archive writer.
    pub index: IndexFacts,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub extra: Metadata,
}

/// A [`Notice`] and the store that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreNotice {
    /// The store; empty where it is about the backup as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub store: String,
    /// What happened.
    #[serde(flatten)]
    pub notice: Notice,
}

/// A program and its version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Name of the library or tool.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The application whose memory is backed up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its version; compared at restore.
    pub version: String,
}

/// The machine that made the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
}

impl SystemInfo {
    /// This machine, without anything that identifies it.
    #[must_use]
    pub fn current() -> Self {
        Self { os: std::env::consts::OS.into(), arch: std::env::consts::ARCH.into() }
    }
}

/// Whether all stores of an archive show one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Consistency {
    /// One moment for all: one store that was pinned, or several pinned or held within one
    /// pause of the application that did not run out.
    Consistent,
    /// Each store shows one moment, but not the same one.
    PerStore,
    /// At least one store was read while it could change.
    #[default]
    Fuzzy,
}

/// How one store was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StoreConsistency {
    /// One moment, fixed by the store.
    Pinned,
    /// The application was paused through the copy.
    Held,
    /// Read while it could change.
    #[default]
    Fuzzy,
}

/// When a store was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWindow {
    /// When it was pinned, or reading began.
    pub start: Timestamp,
    /// When reading ended.
    pub end: Timestamp,
}

/// One store of an archive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreManifest {
    /// The kind of adapter: `sqlite`.
    pub kind: String,
    /// The engine's name.
    pub engine: String,
    /// The engine's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// How it was read.
    pub consistency: StoreConsistency,
    /// When it was read.
    pub window: TimeWindow,
    /// What the store calls the moment it was pinned at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// Whether the store was changed while it was read, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
    /// It was optional and could not be reached: there is nothing of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// Number of parts.
    pub parts: u64,
    /// Bytes of the parts, uncompressed.
    pub bytes: u64,
    /// The collections, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub collections: BTreeMap<String, CollectionManifest>,
    /// The native blobs, by file name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blobs: BTreeMap<String, BlobContent>,
    /// Facts from the adapter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: Metadata,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub extra: Metadata,
}

/// One collection of a store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectionManifest {
    /// Count and digests.
    #[serde(flatten)]
    pub tally: Tally,
    /// Bytes of its parts, uncompressed.
    pub bytes: u64,
    /// How many records there were of which these were selected; `None`: all were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected_from: Option<u64>,
    /// What the adapter said of it.
    #[serde(flatten)]
    pub info: CollectionInfo,
    /// Named figures: documents, entities.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub statistics: BTreeMap<String, u64>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub extra: Metadata,
}

/// What an adapter or the host says of a collection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectionInfo {
    /// The vectors, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vector_info: BTreeMap<String, VectorInfo>,
    /// The model that made the vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Where a record's value repeats its key: a JSON pointer for each part of it, in order. A
    /// record that gets another key at a restore gets it there, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// Where in a record's value the well-known fields are.
    #[serde(default, skip_serializing_if = "FieldMapping::is_empty")]
    pub fields: FieldMapping,
    /// Facts from the adapter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: Metadata,
}

/// What the manifest says of a vector column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorInfo {
    /// Elements of one vector; `None` for sparse ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dim: Option<u64>,
    /// Element type.
    pub element: ElementType,
    /// `cosine`, `dot`, `euclid`, `manhattan`, as the store calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<String>,
}

/// Where in a record's value the well-known fields are: JSON pointers (RFC 6901).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FieldMapping {
    /// The project, workspace or tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// A list of tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The model that made the record's vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Further fields, by the host's own names or those of a later version.
    #[serde(flatten)]
    pub other: BTreeMap<String, String>,
}

impl FieldMapping {
    /// The JSON pointer of a field, by its name: that of a member here, or of
    /// [`other`](Self::other).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let known = match name {
            "project" => &self.project,
            "category" => &self.category,
            "tags" => &self.tags,
            "created_at" => &self.created_at,
            "updated_at" => &self.updated_at,
            "title" => &self.title,
            "content" => &self.content,
            "model" => &self.model,
            other => return self.other.get(other).map(String::as_str),
        };
        known.as_deref()
    }

    /// Sets the JSON pointer of a field, by its name as [`get`](Self::get) and
    /// [`Field::new`](crate::select::Field::new) have it.
    pub fn set(&mut self, name: &str, pointer: impl Into<String>) {
        let known = match name {
            "project" => &mut self.project,
            "category" => &mut self.category,
            "tags" | "tag" => &mut self.tags,
            "created_at" | "created" => &mut self.created_at,
            "updated_at" | "updated" => &mut self.updated_at,
            "title" => &mut self.title,
            "content" => &mut self.content,
            "model" => &mut self.model,
            other => {
                self.other.insert(other.to_owned(), pointer.into());
                return;
            }
        };
        *known = Some(pointer.into());
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One end of a reference: the keys of a collection's records, or a field in their values.
///
/// As text it is `store/collection` or `store/collection:/field`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReferenceEnd {
    /// The store.
    pub store: String,
    /// The collection; of a folder tree, the root.
    pub collection: String,
    /// A JSON pointer (RFC 6901) into the value; `None`: the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ReferenceEnd {
    /// The keys of a collection's records.
    #[must_use]
    pub fn key(store: impl Into<String>, collection: impl Into<String>) -> Self {
        Self { store: store.into(), collection: collection.into(), field: None }
    }

    /// The values at a JSON pointer, each item of one that is a list.
    #[must_use]
    pub fn field(
        store: impl Into<String>,
        collection: impl Into<String>,
        pointer: impl Into<String>,
    ) -> Self {
        Self { field: Some(pointer.into()), ..Self::key(store, collection) }
    }
}

impl FromStr for ReferenceEnd {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (place, field) = match text.find(":/") {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        match place.split_once('/') {
            Some((store, collection)) if !store.is_empty() && !collection.is_empty() => Ok(Self {
                store: store.into(),
                collection: collection.into(),
                field: field.map(Into::into),
            }),
            _ => Err(Error::new(ErrorKind::InvalidInput, "not the end of a reference")
                .on(format!("{text:?}"))
                .advise("write it like store/collection or store/collection:/field")),
        }
    }
}

impl fmt::Display for ReferenceEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.collection)?;
        self.field.iter().try_for_each(|field| write!(f, ":{field}"))
    }
}

/// What was counted of a reference: of the values that point, how many name no record of the
/// archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReferenceCount {
    /// Where the values are that point.
    pub from: ReferenceEnd,
    /// Where they point.
    pub to: ReferenceEnd,
    /// The host cannot do without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// How many different values point.
    pub values: u64,
    /// How many of them dangle; `None`: that was not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dangling: Option<u64>,
    /// A few that dangle, as canonical JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
    /// Why it was not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub extra: Metadata,
}

impl ReferenceCount {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(from: &ReferenceEnd, to: &ReferenceEnd) -> Self {
        Self {
            from: from.clone(),
            to: to.clone(),
            required: false,
            values: 0,
            dangling: None,
            examples: Vec::new(),
            unchecked: None,
            extra: Metadata::new(),
        }
    }
}

/// One line: `state/notes:/point -> vectors/passages: 2 of 9 values dangle: 7, 8`.
impl fmt::Display for ReferenceCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: ", self.from, self.to)?;
        let s = if self.values == 1 { "" } else { "s" };
        match self.dangling {
            None => {
                let why = self.unchecked.as_deref().unwrap_or("it is not known why");
                write!(f, "not checked: {why}")
            }
            Some(0) => write!(f, "{} value{s}, none dangles", self.values),
            Some(dangling) => {
                let verb = if dangling == 1 { "dangles" } else { "dangle" };
                write!(f, "{dangling} of {} value{s} {verb}", self.values)?;
                let known = self.examples.len() as u64;
                if known > 0 {
                    write!(f, ": {}", self.examples.join(", "))?;
                    f.write_str(if known < dangling { ", …" } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

/// Where the index pages of an archive are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IndexFacts {
    /// Number of parts listed in the pages.
    pub parts: u64,
    /// Bytes of those parts, uncompressed.
    pub bytes: u64,
    /// Length of the tar up to the root's header.
    pub tar_size: u64,
    /// The pages, in order.
    pub pages: Vec<PageRef>,
}

/// Where one index page is: it is alone in its segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// Offset of its segment in the file.
    pub offset: u64,
    /// Compressed length of the segment.
    pub size: u64,
    /// Offset of the segment in the tar.
    pub tar_offset: u64,
    /// Uncompressed length of the segment.
    pub tar_size: u64,
    /// SHA-256 of the compressed bytes.
    pub sha256: Sha256Digest,
}

impl Manifest {
    /// The major version of the format that this module reads and writes.
    pub const FORMAT: u32 = 1;

    /// A manifest without stores, from what the preamble said.
    #[must_use]
    pub fn new(preamble: &Preamble, codec: Codec) -> Self {
        Self {
            format: preamble.format,
            id: preamble.id,
            created: preamble.created,
            finished: preamble.created,
            producer: preamble.producer.clone(),
            application: preamble.application.clone(),
            description: preamble.description.clone(),
            data_schema_version: None,
            codec,
            encryption: None,
            system: None,
            partial: false,
            selection: Vec::new(),
            consistency: Consistency::Fuzzy,
            stores: BTreeMap::new(),
            config: Vec::new(),
            notices: Vec::new(),
            notice_count: 0,
            references: Vec::new(),
            statistics: BTreeMap::new(),
            metadata: Metadata::new(),
            index: IndexFacts::default(),
            extra: Metadata::new(),
        }
    }

    /// Reads `manifest.json`.
    ///
    /// # Errors
    /// [`UnknownVersion`](ErrorKind::UnknownVersion) for another major version, named;
    /// [`Corrupt`](ErrorKind::Corrupt) for text that is not a manifest.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        read(text, "manifest.json")
    }

    /// Whether all of a store was asked for, and nothing but. Where it was not, a restore has to
    /// leave what is not in the archive as it is.
    #[must_use]
    pub fn asked_for_all_of(&self, store: &str) -> bool {
        // What a later version says and this one cannot read chooses something.
        Selection::parse(&self.selection).is_ok_and(|selection| selection.takes_all_of(store))
    }

    /// Writes `manifest.json`: canonical JSON.
    ///
    /// # Errors
    /// Metadata that JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        write(self)
    }
}

impl Preamble {
    /// The first part of an archive that begins now.
    #[must_use]
    pub fn new(id: ArchiveId, created: Timestamp, application: Application) -> Self {
        Self {
            format: Manifest::FORMAT,
            id,
            created,
            producer: Producer {
                name: "backup-kit".into(),
                version: env!("CARGO_PKG_VERSION").into(),
            },
            application,
            description: None,
            extra: Metadata::new(),
        }
    }

    /// Reads `backup.json`.
    ///
    /// # Errors
    /// As [`Manifest::from_json`].
    pub fn from_json(text: &[u8]) -> Result<Self> {
        read(text, "backup.json")
    }

    /// Writes `backup.json`: canonical JSON.
    ///
    /// # Errors
    /// Metadata that JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        write(self)
    }
}

impl StoreManifest {
    /// What a restore of this store has to find.
    #[must_use]
    pub fn content(&self) -> Content {
        let mut content = Content::new();
        content.blobs = self.blobs.clone();
        content.collections =
            self.collections.iter().map(|(name, c)| (name.clone(), c.tally.clone())).collect();
        content
    }
}

fn read<T: serde::de::DeserializeOwned>(text: &[u8], name: &str) -> Result<T> {
    let corrupt = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Corrupt, "the archive's description cannot be read")
            .on(name)
            .because(e)
    };
    // Refuses a name that stands twice, at every level.
    let value = canonical::parse(text).map_err(|e| corrupt(e.into()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(1) => serde_json::from_value(value).map_err(|e| corrupt(e.into())),
        Some(other) => Err(Error::new(
            ErrorKind::UnknownVersion,
            format!("the archive has format {other}, this build reads format 1"),
        )
        .on(name)),
        None => Err(corrupt("it names no format".into())),
    }
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let value = serde_json::to_value(value).map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "the manifest holds what JSON cannot").because(e)
    })?;
    let mut out = Vec::new();
    canonical::Writer::new(&mut out).value(&value)?;
    out.push(b'\n');
    Ok(out)
}
