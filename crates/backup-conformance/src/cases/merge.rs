//! Sinks that add to what is there.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    Cancel, EntryPath, ErrorKind, Prepared, Reattached, Sink, SinkSession, StageToken, WriteMode,
    record::{Key, RecordBatch, tagged::Scalar},
};

use crate::{
    dataset::Dataset,
    harness::Harness,
    kit::{At, Before, Checked, During, Fault, Kit, ensure, write_all},
    reading::{Kept, Reading, kept},
    samples::{self, row, rows},
};

/// A store with content of its own, and what is to be merged into it: a record that it has
/// otherwise, some that it has just so, and a collection that it lacks; or files of these kinds.
async fn scene<'a, H: Harness>(kit: &Kit<'a, H>) -> Checked<(At<'a, H>, Before, Reading)> {
    kit.needs(kit.can.merge && (kit.can.records || kit.can.entries), "merge")?;
    let reading = kit.filled(&samples::other(kit)).await?.read().await?;
    let to = kit.filled(&samples::standard(kit)).await?;
    let before = to.before().await?;
    Ok((to, before, reading))
}

async fn begin<H: Harness>(
    kit: &Kit<'_, H>,
    store: &H::Store,
    reading: &Reading,
) -> Checked<(Prepared, Box<dyn SinkSession>)> {
    let plan = kit.plan(store, WriteMode::Merge, reading);
    let prepared = store.prepare(&plan).await.during("prepare")?;
    let session = store.begin(&prepared.token, &Cancel::new()).await.during("begin")?;
    Ok((prepared, session))
}

/// What both hold is the archive's, the rest stays, and an undo brings all of it back.
pub(super) async fn merge<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (to, before, reading) = scene(kit).await?;
    let (_, session) = begin(kit, &to.open().await?, &reading).await?;
    let to_parts = to.read().await?.parts;
    let (archived, live) = (lines(&reading.parts), lines(&to_parts));
    let keys: BTreeSet<&str> = archived.keys().map(|(_, key, _)| key.as_str()).collect();
    let asked = keys.iter().map(|key| Key::from_json(key)).collect::<Result<Vec<_>, _>>()?;
    let collections = before.sight.content.collections.keys();
    for collection in collections.filter(|_| kit.can.records) {
        let existing = session.existing(collection, &asked).await.during("existing")?;
        let mut wanted = live.clone();
        wanted.retain(|(name, key, _), _| name == collection && keys.contains(key.as_str()));
        let found = found(existing);
        ensure!(found == wanted, "existing() found {found:?} of {wanted:?}");
    }
    for entry in entries(&reading.parts).into_values() {
        let Kept::Entry { root, item } = entry else { continue };
        let found = session.existing_entry(root, &item.path).await.during("existing_entry")?;
        let found = match found {
            Some(entry) => Some(kept(entry).await.during("reading a live file")?.summary()),
            None => None,
        };
        let wanted = entries(&to_parts).get(&(root, &item.path)).map(|entry| entry.summary());
        ensure!(found == wanted, "existing_entry() found {found:?} instead of {wanted:?}");
    }
    write_all(&*session, &reading.parts).await.during("write")?;
    ensure!(to.sight().await? == before.sight, "writing changed live content");
    let staged = session.verify(&reading.content).await.during("verify before commit")?;
    ensure!(staged == reading.content, "staged {staged:?} of {:?}", reading.content);
    session.commit().await.during("commit")?;
    let now = to.read().await?.parts;
    let merged = lines(&now);
    let mut wanted = live;
    wanted.extend(archived);
    ensure!(merged == wanted, "merged into {merged:?} instead of {wanted:?}");
    let mut wanted = entries(&to_parts);
    wanted.extend(entries(&reading.parts));
    let summaries =
        |of: BTreeMap<_, &Kept>| of.into_values().map(Kept::summary).collect::<Vec<_>>();
    let (merged, wanted) = (summaries(entries(&now)), summaries(wanted));
    ensure!(merged == wanted, "merged into {merged:?} instead of {wanted:?}");
    // Of all that is live, what was merged.
    let there = session.verify(&reading.content).await.during("verify after commit")?;
    ensure!(there == reading.content, "live is {there:?} of {:?}", reading.content);
    if kit.can.undo {
        session.undo().await.during("undo")?;
        let now = to.sight().await?;
        ensure!(now == before.sight, "undo of a merge did not bring back the old content: {now:?}");
    }
    session.finish().await.during("finish")?;
    drop(session);
    if kit.can.undo { to.is_as_before(&before).await } else { Ok(()) }
}

/// A collection that is not there holds none of the keys.
pub(super) async fn existing_of_nothing<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.collections, "collections")?;
    let (to, before, reading) = scene(kit).await?;
    let (_, session) = begin(kit, &to.open().await?, &reading).await?;
    for root in kit.harness.roots().iter().filter(|_| kit.can.entries) {
        let path = EntryPath::new("nowhere").during("naming a path")?;
        let found = session.existing_entry(root, &path).await.during("existing_entry")?;
        ensure!(found.is_none(), "existing_entry() found {found:?} at {path}");
    }
    let asks = [("nowhere", vec![Key::from(1)]), ("notes", Vec::new())];
    for (collection, keys) in asks.into_iter().filter(|_| kit.can.records) {
        let collection = kit.collection(collection);
        let found = found(session.existing(&collection, &keys).await.during("existing")?);
        ensure!(found.is_empty(), "existing() found {found:?} of {keys:?} in {collection}");
    }
    session.abort().await.during("abort")?;
    drop(session);
    to.is_as_before(&before).await
}

pub(super) async fn aborted_merge<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (to, before, reading) = scene(kit).await?;
    for written in [0, 1, reading.parts.len()] {
        let store = to.open().await?;
        let (Prepared { token, .. }, session) = begin(kit, &store, &reading).await?;
        let notes = kit.collection("notes");
        if kit.can.records {
            session.existing(&notes, &[Key::from(1), Key::from(99)]).await.during("existing")?;
        }
        write_all(&*session, &reading.parts[..written]).await.during("write")?;
        if written == reading.parts.len() {
            session.verify(&reading.content).await.during("verify")?;
        }
        session.abort().await.during("abort")?;
        drop(session);
        to.is_as_before(&before).await?;
        let found = store.reattach(&token).await.during("reattach")?;
        let absent = matches!(found, Reattached::Absent);
        ensure!(absent, "after abort, reattach found {found:?}");
    }
    Ok(())
}

/// Each step by another process, and each verb twice.
pub(super) async fn merge_by_many<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (to, before, reading) = scene(kit).await?;
    let find = async |token| to.open().await?.reattach(token).await.during("reattach");
    let (Prepared { token, .. }, session) = begin(kit, &to.open().await?, &reading).await?;
    write_all(&*session, &reading.parts).await.during("write")?;
    session.verify(&reading.content).await.during("verify")?;
    drop(session);
    for _ in 0..2 {
        let session = match find(&token).await? {
            Reattached::Staged(session) => session,
            other => return Err(Fault::Fail(format!("after verify, reattach found {other:?}"))),
        };
        let staged = session.verify(&reading.content).await.during("verify again")?;
        ensure!(staged == reading.content, "staged {staged:?} of {:?}", reading.content);
    }
    let Reattached::Staged(session) = find(&token).await? else { unreachable!("as above") };
    session.commit().await.during("commit")?;
    drop(session);
    for _ in 0..2 {
        let session = match find(&token).await? {
            Reattached::Committed(session) => session,
            other => return Err(Fault::Fail(format!("after commit, reattach found {other:?}"))),
        };
        session.commit().await.during("commit again")?;
        let live = session.verify(&reading.content).await.during("verify after commit")?;
        ensure!(live == reading.content, "live is {live:?} of {:?}", reading.content);
        if !kit.can.undo {
            session.finish().await.during("finish")?;
            return Ok(());
        }
    }
    let Reattached::Committed(session) = find(&token).await? else { unreachable!("as above") };
    session.undo().await.during("undo")?;
    drop(session);
    for _ in 0..2 {
        match find(&token).await? {
            Reattached::Undone(session) => session.undo().await.during("undo again")?,
            other => return Err(Fault::Fail(format!("after undo, reattach found {other:?}"))),
        }
    }
    let Reattached::Undone(session) = find(&token).await? else { unreachable!("as above") };
    session.finish().await.during("finish")?;
    drop(session);
    let found = find(&token).await?;
    ensure!(matches!(found, Reattached::Absent), "after finish, reattach found {found:?}");
    to.is_as_before(&before).await
}

/// Somebody writes between the question and the commit: to a record that is about to be
/// written, to one that was free, or to another one, which is nobody's business.
pub(super) async fn changed_since_it_was_read<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.merge && kit.can.records, "merge")?;
    let live = || samples::records(kit, [rows("notes", 5)]);
    let archive = kit.filled(&numbered(kit, &[(2, -2), (9, -9)])).await?.read().await?;
    for (number, refused) in [(2, true), (9, true), (3, false)] {
        let to = kit.filled(&live()).await?;
        let others = kit.filled(&numbered(kit, &[(number, 77)])).await?.read().await?;
        let (Prepared { token, notes, .. }, session) =
            begin(kit, &to.open().await?, &archive).await?;
        let asked = [2, 3, 9].map(Key::from);
        session.existing(&kit.collection("notes"), &asked).await.during("existing")?;
        write_all(&*session, &archive.parts).await.during("write")?;
        session.verify(&archive.content).await.during("verify")?;
        // The only way to write that every store has.
        if merge_in(kit, &to, &others).await.is_err() {
            kit.note("two restores at once are refused: nobody was seen to write meanwhile");
            session.abort().await.during("abort")?;
            continue;
        }
        let wins = notes.iter().any(|note| note.contains("last writer wins"));
        let what = format!("record {number}");
        commit_over(&to, (&token, &*session), &what, (refused, wins)).await?;
    }
    Ok(())
}

/// The same of files: one that is about to be written, one that was not there, another one.
pub(super) async fn entry_changed_since_it_was_read<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.merge && kit.can.entries, "merge and entries")?;
    let tree = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| samples::file(name, text.as_bytes(), 0o644));
        let mut data = Dataset { collections: Vec::new(), trees: Vec::new() };
        samples::with_trees(kit, &mut data, files.collect());
        samples::fitting(kit, data)
    };
    let archive = kit.filled(&tree(&[("a", "archived"), ("free", "archived")])).await?;
    let archive = archive.read().await?;
    for (name, refused) in [("a", true), ("free", true), ("other", false)] {
        let to = kit.filled(&tree(&[("a", "live"), ("b", "live")])).await?;
        let others = kit.filled(&tree(&[(name, "meanwhile")])).await?.read().await?;
        let (Prepared { token, .. }, session) = begin(kit, &to.open().await?, &archive).await?;
        for part in &archive.parts {
            if let Kept::Entry { root, item } = part {
                session.existing_entry(root, &item.path).await.during("existing_entry")?;
            }
            session.write(part.to_part()).await.during("write")?;
        }
        merge_in(kit, &to, &others).await?;
        commit_over(&to, (&token, &*session), name, (refused, false)).await?;
    }
    Ok(())
}

/// Commits where `what` was changed meanwhile: a commit that is `refused` changes nothing and stays
/// staged. Where the last writer `wins`, it need not be.
async fn commit_over<H: Harness>(
    to: &At<'_, H>,
    (token, session): (&StageToken, &dyn SinkSession),
    what: &str,
    (refused, wins): (bool, bool),
) -> Checked {
    let between = to.sight().await?;
    let Err(error) = session.commit().await else {
        ensure!(!refused || wins, "commit wrote over {what}, which was changed meanwhile");
        session.finish().await.during("finish")?;
        return Ok(());
    };
    ensure!(refused, "a change of something else is in the way: {error:?}");
    let changed = error.kind() == ErrorKind::Changed;
    ensure!(changed, "commit said {error:?}, not that {what} was changed");
    ensure!(to.sight().await? == between, "a commit that was refused changed something");
    let found = to.open().await?.reattach(token).await.during("reattach")?;
    let staged = matches!(found, Reattached::Staged(_));
    ensure!(staged, "after a commit that was refused, reattach found {found:?}");
    session.abort().await.during("abort")?;
    Ok(())
}

async fn merge_in<H: Harness>(kit: &Kit<'_, H>, to: &At<'_, H>, reading: &Reading) -> Checked {
    let (_, session) = begin(kit, &to.open().await?, reading).await?;
    write_all(&*session, &reading.parts).await.during("write")?;
    session.commit().await.during("commit")?;
    session.finish().await.during("finish")
}

/// Notes of these keys, with these numbers.
fn numbered<H: Harness>(kit: &Kit<'_, H>, notes: &[(i64, i64)]) -> Dataset {
    let mut all = rows("notes", 0);
    all.rows = notes
        .iter()
        .map(|(key, number)| {
            let mut row = row("notes", *key, Key::from(*key));
            row.fields.insert("number".to_owned(), Scalar::Integer((*number).into()));
            row
        })
        .collect();
    samples::records(kit, [all])
}

fn found(batches: Vec<RecordBatch>) -> BTreeMap<Id, String> {
    lines(&batches.into_iter().map(Kept::Records).collect::<Vec<_>>())
}

fn entries(parts: &[Kept]) -> BTreeMap<(&String, &EntryPath), &Kept> {
    let entries = parts.iter().filter_map(|part| match part {
        Kept::Entry { root, item } => Some(((root, &item.path), part)),
        _ => None,
    });
    entries.collect()
}

type Id = (String, String, Option<String>);

fn lines(parts: &[Kept]) -> BTreeMap<Id, String> {
    let batches = parts.iter().filter_map(|part| match part {
        Kept::Records(batch) => Some(batch),
        _ => None,
    });
    let records = batches.flat_map(|batch| {
        batch.iter().map(|record| {
            let element = record.element_json().map(str::to_owned);
            let id = (batch.collection().to_owned(), record.key_json().to_owned(), element);
            (id, record.line().to_owned())
        })
    });
    records.collect()
}
