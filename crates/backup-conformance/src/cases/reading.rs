//! Sources.

use backup_core::{Adapter, Cancel, ErrorKind, Part, PinRequest, Pinned, Source, SourceSession};

use super::content;
use crate::{
    harness::Harness,
    kit::{Checked, During, Fault, Kit, difference, ensure, pin},
    reading::Reading,
    samples::{self, rows},
};

pub(super) async fn source_keeps_its_contract<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let faults = kit.filled(&samples::standard(kit)).await?.read_anyway().await?.faults;
    ensure!(faults.is_empty(), "{faults:?}");
    Ok(())
}

pub(super) async fn everything_is_read<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let data = samples::standard(kit);
    let reading = kit.filled(&data).await?.read().await?;
    content::complete(kit, &data, &reading)
}

pub(super) async fn reading_is_repeatable<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let at = kit.filled(&samples::standard(kit)).await?;
    let (first, second) = (at.read().await?.summaries(), at.read().await?.summaries());
    ensure!(first == second, "{}", difference(&Some(first), &Some(second)));
    Ok(())
}

/// Only of stores whose sessions name their collections: a native snapshot does not. What
/// a session gives beside what is described is the adapter's own.
pub(super) async fn description_agrees<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.records || kit.can.entries, "records")?;
    let data = samples::standard(kit);
    let at = kit.filled(&data).await?;
    let description = at.open().await?.describe().await.during("describe")?;
    ensure!(!description.engine.is_empty(), "describe() names no engine");
    let read = at.read().await?.content.collections;
    for one in &description.collections {
        let found = read.get(&one.name).map(|tally| tally.records);
        ensure!(found.is_some(), "{:?} is described and not read", one.name);
        let told = one.records.or(found);
        ensure!(told == found, "{:?}: {told:?} records told, {found:?} read", one.name);
    }
    let rows = data.collections.iter().filter(|_| kit.can.records).map(|rows| &rows.name);
    for name in rows.chain(data.trees.iter().map(|tree| &tree.root)) {
        let told = description.collections.iter().any(|one| one.name == *name);
        ensure!(told, "{name:?} is not described");
    }
    Ok(())
}

pub(super) async fn selection<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.collections, "collections")?;
    let at = kit.filled(&samples::standard(kit)).await?;
    let all = at.read().await?.content.collections;
    if all.len() < 2 {
        return Err(Fault::Skip("the harness's store has only one collection".into()));
    }
    for (name, tally) in all {
        let mut request = PinRequest::new();
        request.collections = vec![name.clone()];
        let session = pin(&at.open().await?, &request).await.during("pin")?;
        let found = Reading::of(&*session).await.during("reading")?.content;
        session.close().await.during("close")?;
        let only = found.collections.get(&name) == Some(&tally) && found.collections.len() == 1;
        ensure!(only && found.blobs.is_empty(), "asked for {name:?} alone, got {found:?}");
    }
    Ok(())
}

/// A name that is not there is an error or nothing, and not everything.
pub(super) async fn unknown_selection<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.collections, "collections")?;
    let at = kit.filled(&samples::standard(kit)).await?;
    let mut request = PinRequest::new();
    request.collections = vec!["there is none of this name".into()];
    if let Ok(session) = pin(&at.open().await?, &request).await {
        let content = Reading::of(&*session).await.map(|reading| reading.content);
        session.close().await.during("close")?;
        if let Ok(content) = content {
            let nothing = content.collections.values().all(|tally| tally.records == 0);
            ensure!(nothing && content.blobs.is_empty(), "got {content:?}");
        }
    }
    Ok(())
}

pub(super) async fn pinned_moment<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.pins, "pins")?;
    let at = kit.filled(&samples::standard(kit)).await?;
    let before = at.read().await?.content;
    let store = at.open().await?;
    let pinned = store.pin(&PinRequest::new()).await.during("pin")?;
    let Pinned::Pinned { session, .. } = pinned else {
        return Err(Fault::Fail("the store declares `pins` and gave a live session".into()));
    };
    at.change().await?;
    let seen = Reading::of(&*session).await.during("reading")?.content;
    session.close().await.during("close")?;
    ensure!(seen == before, "the session saw a change that came after its moment");
    let after = at.read().await?.content;
    ensure!(after != before, "a new session does not see the change, or there was none");
    Ok(())
}

pub(super) async fn close_leaves_no_trace<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let at = kit.filled(&samples::standard(kit)).await?;
    let before = at.before().await?;
    at.read().await?;
    // Half-way, too.
    let session = pin(&at.open().await?, &PinRequest::new()).await.during("pin")?;
    first_part(&*session).await?;
    session.close().await.during("close")?;
    at.is_as_before(&before).await
}

pub(super) async fn dropped_session_leaves_the_store_usable<H: Harness>(
    kit: &Kit<'_, H>,
) -> Checked {
    let at = kit.filled(&samples::standard(kit)).await?;
    let before = at.sight().await?;
    let session = pin(&at.open().await?, &PinRequest::new()).await.during("pin")?;
    first_part(&*session).await?;
    drop(session);
    ensure!(at.sight().await? == before, "reading after a dropped session found another content");
    match at.change().await {
        Err(Fault::Skip(why)) => kit.note(format!("not tried to write: {why}")),
        changed => changed?,
    }
    Ok(())
}

pub(super) async fn two_sessions_at_once<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let at = kit.filled(&samples::standard(kit)).await?;
    let alone = at.read().await?.content;
    let store = at.open().await?;
    let (a, b) =
        futures::future::try_join(pin(&store, &PinRequest::new()), pin(&store, &PinRequest::new()))
            .await
            .during("pin twice")?;
    let (x, y) = futures::future::try_join(Reading::of(&*a), Reading::of(&*b))
        .await
        .during("reading at once")?;
    a.close().await.during("close")?;
    b.close().await.during("close")?;
    ensure!(x.content == alone && y.content == alone, "sessions disturb each other");
    Ok(())
}

/// Before the pin, and between two parts.
pub(super) async fn cancelled_reading<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let mut data = samples::standard(kit);
    data.collections.extend(
        samples::fitting(kit, samples::records(kit, [rows("more", 50)]))
            .collections
            .into_iter()
            .filter(|_| kit.can.collections),
    );
    let at = kit.filled(&data).await?;
    let before = at.before().await?;
    let several = at.read().await?.parts.len() > 1;
    for between in [false, true].into_iter().filter(|between| several || !between) {
        let cancel = Cancel::new();
        let mut request = PinRequest::new();
        request.cancel = cancel.clone();
        if !between {
            cancel.cancel();
        }
        let ended = match pin(&at.open().await?, &request).await {
            Err(error) => Err(error),
            Ok(session) => {
                if between {
                    first_part(&*session).await?;
                    cancel.cancel();
                }
                let ended = Reading::of(&*session).await;
                session.close().await.during("close after a cancellation")?;
                ended
            }
        };
        let when = if between { "between two parts" } else { "before the pin" };
        match ended {
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => return Err(Fault::Fail(format!("cancelled {when}: {error:?}"))),
            Ok(_) => return Err(Fault::Fail(format!("cancelled {when}, it read to the end"))),
        }
        at.is_as_before(&before).await?;
    }
    Ok(())
}

async fn first_part(session: &dyn SourceSession) -> Checked<Option<Part>> {
    for partition in session.partitions().await.during("partitions")? {
        if let Some(part) = session.next(&partition).await.during("next")? {
            return Ok(Some(part));
        }
    }
    Ok(None)
}
