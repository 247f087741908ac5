//! Restores that go wrong. After every one the store must be as it was.

use backup_core::{
    Blob, ByteStream, Cancel, CollectionEnd, EntryKind, EntryPath, Error, ErrorKind, FileEntry,
    Part, Reattached, Schema, Sink, StageToken, WriteMode, byte_stream, manifest::CollectionInfo,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde_json::json;

use crate::{
    dataset::{Item, Node},
    harness::Harness,
    kit::{At, Before, Checked, During, Fault, Kit, ensure, write_all},
    reading::{Kept, Reading},
    samples,
};

/// A target with content of its own, and what is to be restored into it.
async fn scene<'a, H: Harness>(kit: &Kit<'a, H>) -> Checked<(At<'a, H>, Before, Reading)> {
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.filled(&samples::other(kit)).await?;
    let before = to.before().await?;
    Ok((to, before, reading))
}

pub(super) async fn abort_leaves_no_trace<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (to, before, reading) = scene(kit).await?;
    for written in [0, 1, reading.parts.len() / 2, reading.parts.len()] {
        let (token, session) = kit.begin(&to.open().await?, &reading).await?;
        write_all(&*session, &reading.parts[..written]).await.during("write")?;
        if written == reading.parts.len() {
            session.verify(&reading.content).await.during("verify")?;
        }
        session.abort().await.during("abort")?;
        drop(session);
        to.is_as_before(&before).await?;
        let found = to.open().await?.reattach(&token).await.during("reattach")?;
        let absent = matches!(found, Reattached::Absent);
        ensure!(absent, "after abort, reattach found {found:?}");
    }
    Ok(())
}

pub(super) async fn abort_twice<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (to, before, reading) = scene(kit).await?;
    let (_, session) = kit.stage(&to.open().await?, &reading).await?;
    session.abort().await.during("abort")?;
    session.abort().await.during("the second abort")?;
    drop(session);
    to.is_as_before(&before).await
}

/// Before the beginning, between two parts, and within the body of one.
pub(super) async fn cancelled_restore<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (to, before, reading) = scene(kit).await?;
    for written in [0, 1].into_iter().filter(|written| *written < reading.parts.len()) {
        let store = to.open().await?;
        let plan = kit.plan(&store, WriteMode::Replace, &reading);
        let token = store.prepare(&plan).await.during("prepare")?.token;
        let cancel = Cancel::new();
        let begun = async {
            if written == 0 {
                cancel.cancel();
            }
            let session = store.begin(&token, &cancel).await?;
            for (number, part) in reading.parts.iter().enumerate() {
                if number == written {
                    cancel.cancel();
                }
                session.write(part.to_part()).await?;
            }
            session.verify(&reading.content).await.map(drop)
        };
        let kind = begun.await.err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::Cancelled), "after a cancellation: {kind:?}");
        drop(store);
        to.clean(&token).await?;
        to.is_as_before(&before).await?;
    }
    for (place, part) in reading.parts.iter().enumerate() {
        if with_body(part, Body::Breaks).is_none() {
            continue;
        }
        let store = to.open().await?;
        let plan = kit.plan(&store, WriteMode::Replace, &reading);
        let token = store.prepare(&plan).await.during("prepare")?.token;
        let cancel = Cancel::new();
        let session = store.begin(&token, &cancel).await.during("begin")?;
        write_all(&*session, &reading.parts[..place]).await.during("write")?;
        let mut cancelling = part.to_part();
        if let Part::Blob(Blob { body, .. })
        | Part::Entry(FileEntry { kind: EntryKind::File { body, .. }, .. }) = &mut cancelling
        {
            let whole = std::mem::replace(body, byte_stream(Bytes::new()));
            *body = whole.inspect(move |_| cancel.cancel()).boxed();
        }
        // One that had all of its bytes may end well.
        if let Err(error) = session.write(cancelling).await {
            let kind = error.kind();
            ensure!(kind == ErrorKind::Cancelled, "cancelled within a body: {error:?}");
        }
        let next = session.write(part.to_part()).await.err().map(|error| error.kind());
        ensure!(next == Some(ErrorKind::Cancelled), "after a cancellation: {next:?}");
        session.abort().await.during("abort")?;
        drop(session);
        to.is_as_before(&before).await?;
    }
    Ok(())
}

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Body {
    Breaks,
    TooShort,
    TooLong,
    /// Its second half never comes.
    Stalls,
}

impl Body {
    fn of(self, bytes: &Bytes) -> ByteStream {
        let half = bytes.slice(..bytes.len() / 2);
        match self {
            Self::TooShort => byte_stream(half),
            Self::TooLong => byte_stream([&bytes[..], b"more"].concat()),
            Self::Stalls => byte_stream(half).chain(futures::stream::pending()).boxed(),
            Self::Breaks => {
                let error = Error::new(ErrorKind::Io, "a body that a test breaks");
                byte_stream(half).chain(futures::stream::iter([Err(error)])).boxed()
            }
        }
    }
}

/// The part with another body; `None` for one that has none, or an empty one.
fn with_body(part: &Kept, body: Body) -> Option<Part> {
    let bytes = match part {
        Kept::Blob { bytes, .. }
        | Kept::Entry { item: Item { node: Node::File(bytes), .. }, .. } => bytes,
        _ => return None,
    };
    let mut part = part.to_part();
    if let Part::Blob(Blob { body: stream, .. })
    | Part::Entry(FileEntry { kind: EntryKind::File { body: stream, .. }, .. }) = &mut part
    {
        *stream = body.of(bytes);
    }
    Some(part).filter(|_| !bytes.is_empty())
}

/// Writes up to the last blob, and up to the last file, whose body is then wrong.
async fn refused_body<H: Harness>(kit: &Kit<'_, H>, body: Body) -> Checked {
    kit.needs(kit.can.blobs || kit.can.entries, "blobs or entries")?;
    let (to, before, reading) = scene(kit).await?;
    let last = |blob: bool| {
        reading.parts.iter().rposition(|part| {
            matches!(part, Kept::Blob { .. }) == blob && with_body(part, body).is_some()
        })
    };
    let places: Vec<usize> = [last(true), last(false)].into_iter().flatten().collect();
    if places.is_empty() {
        return Err(Fault::Skip("the store gave no part with a body".into()));
    }
    for place in places {
        let (token, session) = kit.begin(&to.open().await?, &reading).await?;
        write_all(&*session, &reading.parts[..place]).await.during("write")?;
        let Some(part) = with_body(&reading.parts[place], body) else { continue };
        if body == Body::Stalls {
            // The caller gives up waiting, and dies.
            let ended = session.write(part).now_or_never();
            ensure!(!matches!(ended, Some(Ok(()))), "a part was taken whose body {body:?}");
            drop(session);
            to.clean(&token).await?;
        } else {
            let refused = session.write(part).await.is_err();
            ensure!(refused, "a part was taken whose body {body:?}");
            session.abort().await.during("abort")?;
            drop(session);
        }
        to.is_as_before(&before).await?;
    }
    Ok(())
}

pub(super) async fn broken_body<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    refused_body(kit, Body::Breaks).await
}

pub(super) async fn wrong_length<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    refused_body(kit, Body::TooShort).await?;
    refused_body(kit, Body::TooLong).await
}

/// The future of a write is dropped before it ends.
pub(super) async fn dropped_write<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    refused_body(kit, Body::Stalls).await
}

/// Refused or taken, but no panic, and no trace after the abort.
pub(super) async fn nonsense_schema<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.records, "records")?;
    let (to, before, reading) = scene(kit).await?;
    let injected = "CREATE TABLE x (a); DROP TABLE notes; ATTACH 'evil.db' AS e; --";
    let mut documents = vec![
        json!(null),
        json!(5),
        json!(injected),
        json!([]),
        json!([injected, null]),
        json!({"ddl": injected, "sql": [injected], "config": -1, "$type": "Map"}),
    ];
    // What the adapter itself wrote, with every value made into something else.
    for part in &reading.parts {
        if let Kept::Schema(schema) = part {
            documents.extend(
                [json!(7), json!(injected), json!(null)]
                    .map(|with| replaced(&schema.document, &with)),
            );
        }
    }
    for document in documents {
        let (token, session) = kit.begin(&to.open().await?, &reading).await?;
        let schema = Schema {
            collection: kit.collection("notes"),
            document: document.clone(),
            info: CollectionInfo::default(),
        };
        let end = CollectionEnd { collection: kit.collection("notes"), ..Default::default() };
        if session.write(Part::Schema(schema)).await.is_ok()
            && session.write(Part::End(end)).await.is_ok()
        {
            // What it makes of it is its own affair as long as it is staged.
            let _ = session.verify(&reading.content).await;
        }
        drop(session);
        to.clean(&token).await?;
        to.is_as_before(&before).await.map_err(|fault| match fault {
            Fault::Fail(what) => Fault::Fail(format!("schema {document}: {what}")),
            skip => skip,
        })?;
    }
    Ok(())
}

fn replaced(document: &serde_json::Value, with: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match document {
        Value::Array(items) => items.iter().map(|item| replaced(item, with)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, item)| (name.clone(), replaced(item, with))).collect()
        }
        _ => with.clone(),
    }
}

pub(super) async fn records_before_schema<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.records, "records")?;
    let (to, before, reading) = scene(kit).await?;
    let records = reading.parts.iter().find(|part| matches!(part, Kept::Records(_)));
    let Some(records) = records else {
        return Err(Fault::Skip("the store gave no records".into()));
    };
    let (token, session) = kit.begin(&to.open().await?, &reading).await?;
    let taken = session.write(records.to_part()).await;
    ensure!(taken.is_err(), "records were taken before their schema");
    drop(session);
    to.clean(&token).await?;
    to.is_as_before(&before).await
}

/// A file below a link must be refused, or the link would lead it out of the root.
pub(super) async fn entries_stay_inside<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.entries, "entries")?;
    let (to, before, reading) = scene(kit).await?;
    let root = kit.harness.roots().into_iter().next().unwrap_or_default();
    for target in [&b".."[..], b".", b"../..", b"/tmp"] {
        let entry = |path: &str, kind| FileEntry {
            root: root.clone(),
            path: EntryPath::new(path).expect("a plain path"),
            mode: 0o644,
            modified: (0, 0),
            kind,
        };
        let (token, session) = kit.begin(&to.open().await?, &reading).await?;
        let link = entry("out", EntryKind::Symlink { target: target.to_vec() });
        let name = "out/backup-conformance-escaped";
        let file = entry(name, EntryKind::File { len: 4, body: byte_stream("evil") });
        let outcome = async {
            session.write(Part::Entry(link)).await?;
            session.write(Part::Entry(file)).await
        };
        ensure!(outcome.await.is_err(), "a file was taken below a link");
        drop(session);
        to.clean(&token).await?;
        to.is_as_before(&before).await?;
    }
    Ok(())
}

pub(super) async fn another_kind<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (to, before, reading) = scene(kit).await?;
    let store = to.open().await?;
    let mut plan = kit.plan(&store, WriteMode::Replace, &reading);
    let mut token = store.prepare(&plan).await.during("prepare")?.token;
    plan.kind = "of another kind".into();
    ensure!(store.prepare(&plan).await.is_err(), "prepare took a plan of another kind");
    token.kind = "of another kind".into();
    let begun = store.begin(&token, &Cancel::new()).await;
    ensure!(begun.is_err(), "begin took a token of another kind");
    let found = store.reattach(&token).await;
    ensure!(found.is_err(), "reattach took a token of another kind and found {found:?}");
    to.is_as_before(&before).await
}

/// A journal may be damaged: an error, and nothing is touched.
pub(super) async fn nonsense_token<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (to, before, reading) = scene(kit).await?;
    let store = to.open().await?;
    let plan = kit.plan(&store, WriteMode::Replace, &reading);
    let good = store.prepare(&plan).await.during("prepare")?.token;
    let nonsense = [json!(null), json!(7), json!("x"), json!([]), replaced(&good.data, &json!([]))];
    for data in nonsense {
        let token = StageToken { data: data.clone(), ..good.clone() };
        let begun = store.begin(&token, &Cancel::new()).await;
        ensure!(begun.is_err(), "begin took a token with the data {data}");
        let found = store.reattach(&token).await;
        ensure!(found.is_err(), "reattach took a token with the data {data} and found {found:?}");
    }
    to.is_as_before(&before).await
}
