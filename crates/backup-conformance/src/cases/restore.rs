//! Sinks, as long as nothing goes wrong.

use std::collections::BTreeMap;

use backup_core::{
    ErrorKind, Part, Sink, WriteMode,
    record::{ContentDigest, Key, RecordBatch, Sha256Digest},
};

use crate::{
    harness::Harness,
    kit::{Checked, During, Fault, Kit, difference, ensure, write_all},
    reading::Kept,
    samples::{self, rows},
};

/// The whole way, with every figure compared with the kit's own.
pub(super) async fn round_trip<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let from = kit.filled(&samples::standard(kit)).await?;
    let reading = from.read().await?;
    let to = kit.empty().await?;
    let trace = to.trace().await?;
    if trace.is_none() {
        kit.note("the harness has no `trace`: leftovers are not seen");
    }
    let store = to.open().await?;
    let (_, session) = kit.stage(&store, &reading).await?;
    let staged = session.verify(&reading.content).await.during("verify before commit")?;
    ensure!(staged == reading.content, "staged {staged:?} of {:?}", reading.content);
    session.commit().await.during("commit")?;
    let live = session.verify(&reading.content).await.during("verify after commit")?;
    ensure!(live == reading.content, "live is {live:?} of {:?}", reading.content);
    session.finish().await.during("finish")?;
    drop(session);
    let again = to.read().await?;
    ensure!(again.content == reading.content, "{:?} of {:?}", again.content, reading.content);
    ensure!(to.sight().await? == from.sight().await?, "an application sees another content");
    let (first, second) = (documents(&reading.parts), documents(&again.parts));
    ensure!(first == second, "schemas differ: {}", difference(&Some(first), &Some(second)));
    let after = to.trace().await?;
    ensure!(after == trace, "left behind: {}", difference(&trace, &after));
    Ok(())
}

fn documents(parts: &[Kept]) -> Vec<String> {
    let schemas = parts.iter().filter_map(|part| match part {
        Kept::Schema(schema) => Some((schema.collection.clone(), schema.document.to_string())),
        _ => None,
    });
    // In the order of names: a session may give them in another.
    let sorted: BTreeMap<_, _> = schemas.collect();
    sorted.into_iter().map(|(name, document)| format!("{name}: {document}")).collect()
}

/// `verify` reads; what it is told to expect must make no difference.
pub(super) async fn figures_are_taken_anew<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.empty().await?;
    let (_, session) = kit.stage(&to.open().await?, &reading).await?;
    let mut doctored = reading.content.clone();
    for tally in doctored.collections.values_mut() {
        tally.records += 1;
        tally.digest = ContentDigest::from_bytes([7; 32]);
        tally.vectors.clear();
    }
    for blob in doctored.blobs.values_mut() {
        blob.len += 1;
        blob.digest = Sha256Digest::from_bytes([7; 32]);
    }
    for when in ["before commit", "after commit"] {
        let honest = session.verify(&doctored).await.during("verify")?;
        ensure!(honest == reading.content, "{when}, verify said {honest:?}");
        if when == "before commit" {
            session.commit().await.during("commit")?;
        }
    }
    session.finish().await.during("finish")
}

/// Everything but one part is written: `verify` must not find the whole.
pub(super) async fn lost_parts_are_seen<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let data = |part: &Kept| match part {
        Kept::Records(_) | Kept::Entry { .. } => true,
        Kept::Blob { .. } | Kept::Schema(_) | Kept::End(_) => false,
    };
    let Some(lost) = reading.parts.iter().rposition(data) else {
        return Err(Fault::Skip("the store gives its content in one blob".into()));
    };
    let to = kit.empty().await?;
    let (_, session) = kit.begin(&to.open().await?, &reading).await?;
    write_all(&*session, &reading.parts[..lost]).await.during("write")?;
    write_all(&*session, &reading.parts[lost + 1..]).await.during("write")?;
    // To say so at once is as good.
    if let Ok(found) = session.verify(&reading.content).await {
        ensure!(found != reading.content, "verify found a part that was never written");
    }
    session.abort().await.during("abort")
}

pub(super) async fn replace_removes_what_was_there<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let from = kit.filled(&samples::standard(kit)).await?;
    let to = kit.filled(&samples::other(kit)).await?;
    let trace = to.trace().await?;
    kit.restore(&to, &from.read().await?).await?;
    let (before, after) = (from.sight().await?, to.sight().await?);
    ensure!(before == after, "restored {after:?} instead of {before:?}");
    let now = to.trace().await?;
    ensure!(now == trace, "left behind: {}", difference(&trace, &now));
    Ok(())
}

pub(super) async fn live_is_unchanged_until_commit<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.filled(&samples::other(kit)).await?;
    let before = to.sight().await?;
    let (_, session) = kit.begin(&to.open().await?, &reading).await?;
    for part in &reading.parts {
        session.write(part.to_part()).await.during("write")?;
    }
    ensure!(to.sight().await? == before, "writing changed live content");
    session.verify(&reading.content).await.during("verify")?;
    ensure!(to.sight().await? == before, "verify changed live content");
    session.commit().await.during("commit")?;
    ensure!(to.sight().await?.content == reading.content, "commit did not switch");
    session.finish().await.during("finish")
}

pub(super) async fn prepare_touches_nothing<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.filled(&samples::other(kit)).await?;
    let before = to.before().await?;
    let store = to.open().await?;
    store.prepare(&kit.plan(&store, WriteMode::Replace, &reading)).await.during("prepare")?;
    to.is_as_before(&before).await
}

/// Schemas first, then all batches together.
pub(super) async fn parts_written_at_once<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.records, "records")?;
    let mut data = samples::records(kit, [rows("many", 3000)]);
    data.collections
        .extend(samples::standard(kit).collections.into_iter().filter(|_| kit.can.collections));
    let from = kit.filled(&samples::fitting(kit, data)).await?;
    let reading = from.read().await?;
    let to = kit.empty().await?;
    let (_, session) = kit.begin(&to.open().await?, &reading).await?;
    let (records, others): (Vec<_>, Vec<_>) =
        reading.parts.iter().cloned().partition(|part| matches!(part, Kept::Records(_)));
    let (schemas, ends): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|part| matches!(part, Kept::Schema(_)));
    write_all(&*session, &schemas).await.during("write")?;
    // Small batches, in the wrong order: neither may matter.
    let mut small = Vec::new();
    for part in &records {
        let Kept::Records(batch) = part else { continue };
        small.extend(split(batch)?);
    }
    small.reverse();
    let writes = small.into_iter().map(|batch| session.write(Part::Records(batch)));
    futures::future::try_join_all(writes).await.during("writing at once")?;
    write_all(&*session, &ends).await.during("write")?;
    let staged = session.verify(&reading.content).await.during("verify")?;
    ensure!(staged == reading.content, "staged {staged:?} of {:?}", reading.content);
    session.abort().await.during("abort")
}

/// A batch without vectors in pieces of a few records.
fn split(batch: &RecordBatch) -> Checked<Vec<RecordBatch>> {
    if !batch.columns().is_empty() {
        return Ok(vec![batch.clone()]);
    }
    let lines: Vec<_> = batch.iter().map(|record| record.line()).collect();
    lines
        .chunks(100)
        .map(|lines| {
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            RecordBatch::from_lines(batch.collection(), text.into()).during("splitting a batch")
        })
        .collect()
}

/// The second commit must not take the new content for the pre-image.
pub(super) async fn commit_twice<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.filled(&samples::other(kit)).await?;
    let before = to.sight().await?;
    let (_, session) = kit.stage(&to.open().await?, &reading).await?;
    session.commit().await.during("commit")?;
    session.commit().await.during("the second commit")?;
    ensure!(to.sight().await?.content == reading.content, "the second commit changed something");
    if kit.can.undo {
        session.undo().await.during("undo")?;
        ensure!(to.sight().await? == before, "after two commits, undo does not bring back the old");
    }
    session.finish().await.during("finish")
}

pub(super) async fn undo<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.undo, "undo")?;
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.filled(&samples::other(kit)).await?;
    let before = to.before().await?;
    let (_, session) = kit.stage(&to.open().await?, &reading).await?;
    session.commit().await.during("commit")?;
    session.undo().await.during("undo")?;
    ensure!(to.sight().await? == before.sight, "undo did not bring back the old content");
    session.finish().await.during("finish")?;
    drop(session);
    to.is_as_before(&before).await
}

pub(super) async fn undo_twice<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.undo, "undo")?;
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.filled(&samples::other(kit)).await?;
    let before = to.before().await?;
    let (_, session) = kit.stage(&to.open().await?, &reading).await?;
    session.commit().await.during("commit")?;
    session.undo().await.during("undo")?;
    session.undo().await.during("the second undo")?;
    ensure!(to.sight().await? == before.sight, "the second undo changed something");
    session.finish().await.during("finish")?;
    session.finish().await.during("the second finish")?;
    drop(session);
    to.is_as_before(&before).await
}

pub(super) async fn finish_twice<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.filled(&samples::other(kit)).await?;
    let trace = to.trace().await?;
    let (_, session) = kit.stage(&to.open().await?, &reading).await?;
    session.commit().await.during("commit")?;
    session.finish().await.during("finish")?;
    session.finish().await.during("the second finish")?;
    drop(session);
    ensure!(to.sight().await?.content == reading.content, "finish changed live content");
    let after = to.trace().await?;
    ensure!(after == trace, "left behind: {}", difference(&trace, &after));
    Ok(())
}

pub(super) async fn existing_without_merge<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    if kit.can.merge {
        return Err(Fault::Skip("the adapter declares `merge`".into()));
    }
    let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
    let to = kit.empty().await?;
    let (_, session) = kit.begin(&to.open().await?, &reading).await?;
    let answer = session.existing(&kit.collection("notes"), &[Key::from(1)]).await;
    let kind = answer.err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::Unsupported), "existing() answered {kind:?}");
    session.abort().await.during("abort")
}
