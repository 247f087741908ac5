//! A backup in memory, and a restore from it, as the engines would run them.

use std::path::Path;

use backup_core::{
    Blob, BlobContent, Cancel, Content, Notice, Part, PinRequest, Pinned, Result, Schema, Sink,
    SinkSession, Source, StagePlan, StageToken, Summary, WriteMode, byte_stream,
    record::{MaskedHasher, RecordBatch, Tally},
};
use backup_sqlite::{
    SqliteStore,
    rusqlite::{Connection, types::ValueRef},
};
use futures::{StreamExt, executor::block_on};

/// What a source gave.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) parts: Vec<Piece>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) content: Content,
    pub(crate) summary: Summary,
}

#[derive(Clone)]
pub(crate) enum Piece {
    Schema(Box<Schema>),
    Records(RecordBatch),
    Image { bytes: Vec<u8>, masked: Vec<std::ops::Range<u64>> },
}

impl Piece {
    pub(crate) fn part(&self) -> Part {
        match self.clone() {
            Self::Schema(schema) => Part::Schema(*schema),
            Self::Records(batch) => Part::Records(batch),
            Self::Image { bytes, masked } => image_part(bytes, masked),
        }
    }
}

pub(crate) fn image_part(bytes: Vec<u8>, masked: Vec<std::ops::Range<u64>>) -> Part {
    Part::Blob(Blob {
        name: "main.db".into(),
        len: Some(bytes.len() as u64),
        masked,
        metadata: Default::default(),
        body: byte_stream(bytes),
    })
}

impl Taken {
    pub(crate) fn image(&self) -> &[u8] {
        match &self.parts[..] {
            [Piece::Image { bytes, .. }] => bytes,
            _ => panic!("not a native backup"),
        }
    }

    pub(crate) fn of_image(bytes: Vec<u8>) -> Self {
        let masked = vec![18..20, 24..28, 40..44, 92..100];
        let mut taken = Self::default();
        taken.content.blobs.insert("main.db".into(), hash(&bytes, &masked));
        taken.parts.push(Piece::Image { bytes, masked });
        taken
    }

    pub(crate) fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.parts.iter().filter_map(|piece| match piece {
            Piece::Records(batch) => Some(batch),
            _ => None,
        })
    }

    /// All lines of a collection, in order.
    pub(crate) fn lines(&self, collection: &str) -> Vec<String> {
        let batches = self.batches().filter(|batch| batch.collection() == collection);
        let mut lines: Vec<_> = batches
            .flat_map(|batch| {
                batch.iter().map(|record| record.line().to_owned()).collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        lines
    }

    pub(crate) fn document(&self, collection: &str) -> &serde_json::Value {
        let found = self.parts.iter().find_map(|piece| match piece {
            Piece::Schema(schema) if schema.collection == collection => Some(&schema.document),
            _ => None,
        });
        found.expect("a schema of this collection")
    }
}

fn hash(bytes: &[u8], masked: &[std::ops::Range<u64>]) -> BlobContent {
    let mut hasher = MaskedHasher::new(masked);
    hasher.update(bytes);
    BlobContent {
        len: bytes.len() as u64,
        digest: hasher.finish(),
        masked: masked.iter().map(|r| (r.start, r.end)).collect(),
    }
}

pub(crate) fn take(store: &SqliteStore) -> Result<Taken> {
    take_with(store, &PinRequest::new(), || ())
}

/// A backup; `pinned` runs once the moment is fixed.
pub(crate) fn take_with(
    store: &SqliteStore,
    request: &PinRequest,
    pinned: impl FnOnce(),
) -> Result<Taken> {
    block_on(async {
        let Pinned::Pinned { session, .. } = store.pin(request).await? else {
            panic!("a database is pinned")
        };
        pinned();
        let mut taken = Taken::default();
        for partition in session.partitions().await? {
            while let Some(part) = session.next(&partition).await? {
                match part {
                    Part::Schema(schema) => {
                        let new = taken
                            .content
                            .collections
                            .insert(schema.collection.clone(), Tally::new());
                        assert!(new.is_none(), "{} begins twice", schema.collection);
                        taken.parts.push(Piece::Schema(Box::new(schema)));
                    }
                    Part::Records(batch) => {
                        let tally = taken.content.collections.get_mut(batch.collection());
                        tally.expect("a schema comes first").add_batch(&batch);
                        taken.parts.push(Piece::Records(batch));
                    }
                    Part::Blob(mut blob) => {
                        let mut bytes = Vec::new();
                        while let Some(piece) = blob.body.next().await {
                            bytes.extend_from_slice(&piece?);
                        }
                        assert_eq!(blob.len, Some(bytes.len() as u64));
                        taken.content.blobs.insert(blob.name, hash(&bytes, &blob.masked));
                        taken.parts.push(Piece::Image { bytes, masked: blob.masked });
                    }
                    Part::End(end) => {
                        let records = taken.content.collections[&end.collection].records;
                        assert_eq!(end.count, Some(records), "{}", end.collection);
                    }
                    Part::Notice(notice) => taken.notices.push(notice),
                    other => panic!("{other:?}"),
                }
            }
        }
        taken.summary = session.close().await?;
        Ok(taken)
    })
}

pub(crate) fn token(store: &SqliteStore, taken: &Taken) -> Result<StageToken> {
    token_to(store, taken, WriteMode::Replace)
}

fn token_to(store: &SqliteStore, taken: &Taken, mode: WriteMode) -> Result<StageToken> {
    let mut plan = StagePlan::new("r1", "state", "sqlite");
    plan.mode = mode;
    plan.content = taken.content.clone();
    Ok(block_on(store.prepare(&plan))?.token)
}

/// Stages a backup and checks what was staged.
pub(crate) fn stage(
    store: &SqliteStore,
    taken: &Taken,
) -> Result<(StageToken, Box<dyn SinkSession>)> {
    stage_to(store, taken, WriteMode::Replace)
}

pub(crate) fn stage_to(
    store: &SqliteStore,
    taken: &Taken,
    mode: WriteMode,
) -> Result<(StageToken, Box<dyn SinkSession>)> {
    let token = token_to(store, taken, mode)?;
    block_on(async {
        let session = store.begin(&token, &Cancel::new()).await?;
        for piece in &taken.parts {
            session.write(piece.part()).await?;
        }
        assert_eq!(session.verify(&taken.content).await?, taken.content);
        Ok((token, session))
    })
}

/// A whole restore.
pub(crate) fn restore(store: &SqliteStore, taken: &Taken) -> Result<()> {
    restore_to(store, taken, WriteMode::Replace)
}

/// A whole merge.
pub(crate) fn merge(store: &SqliteStore, taken: &Taken) -> Result<()> {
    restore_to(store, taken, WriteMode::Merge)
}

fn restore_to(store: &SqliteStore, taken: &Taken, mode: WriteMode) -> Result<()> {
    let (_, session) = stage_to(store, taken, mode)?;
    block_on(async {
        session.commit().await?;
        assert_eq!(session.verify(&taken.content).await?, taken.content);
        session.finish().await
    })
}

/// Everything in a database, as text: schema, settings, and all rows with their row ids.
pub(crate) fn dump(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut out = Vec::new();
    for pragma in ["user_version", "application_id", "encoding"] {
        out.push(format!("{pragma} {}", rows(&connection, &format!("PRAGMA {pragma}")).join("")));
    }
    out.extend(rows(
        &connection,
        "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name",
    ));
    let tables = "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' \
                  AND type IN ('table', 'virtual') AND name <> 'sqlite_schema' ORDER BY name";
    let tables: Vec<(String, bool)> = connection
        .prepare(tables)
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for (table, without_rowid) in tables {
        let name = table.replace('"', "\"\"");
        let rowid = if without_rowid { "" } else { "rowid, " };
        let mut found = rows(&connection, &format!("SELECT {rowid}* FROM \"{name}\""));
        found.sort();
        out.push(format!("table {table}"));
        out.extend(found);
    }
    out
}

pub(crate) fn rows(connection: &Connection, query: &str) -> Vec<String> {
    let mut statement = connection.prepare(query).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut out = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let show = |i| match row.get_ref(i).unwrap() {
            ValueRef::Text(bytes) => format!("Text({})", bytes.escape_ascii()),
            other => format!("{other:?}"),
        };
        let values: Vec<_> = (0..columns).map(show).collect();
        out.push(values.join(" "));
    }
    out
}

/// Names in a folder, hidden ones too.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
