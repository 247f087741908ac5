//! Files, folders and links on their way into a store that has some.

use std::pin::pin;

use bytes::{Buf, Bytes};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    merge::{MergeExample, MergedCollection},
    stage::Lane,
    way::Way,
};
use crate::{
    conflict::{MAX_NAMES, SkipReason, Verdict},
    error::{Error, ErrorKind, Result},
    event::{Event, Watch},
    part::{ByteStream, EntryKind, EntryPath, FileEntry},
    record::Key,
    worker::guarded,
};

/// A folder of the archive's where the live store has something else: root and path. What comes
/// below gives way, too.
pub(super) type Blocked = Option<(String, EntryPath)>;

/// What is left of an entry of `collection`, by the archive's name, once what is live at its path
/// was looked at. The body of one that is not written was read to its end.
pub(super) async fn resolve(
    lane: Lane<'_>,
    way: &Way,
    collection: &str,
    mut entry: FileEntry,
    blocked: &mut Blocked,
    watch: &Watch,
) -> Result<(Option<FileEntry>, MergedCollection)> {
    let resolver = way.resolver(collection)?;
    let is_blocked = blocked.as_ref().is_some_and(|(root, folder)| {
        *root == entry.root && entry.path.ancestors().any(|above| above == *folder)
    });
    let live = match is_blocked {
        true => None,
        false => at(lane, &entry.root, &entry.path).await?,
    };
    let verdict = match live {
        None if is_blocked => Some(Verdict::SkipAll(SkipReason::Exists)),
        None => None,
        Some(mut live) => {
            let equal = same(lane, &mut entry, &mut live).await?;
            let verdict = resolver.entry(&entry, &live, equal);
            Some(verdict.map_err(|e| e.on(&entry.path).on(&entry.root).on(lane.name))?)
        }
    };
    let mut merged = MergedCollection::default();
    let counts = &mut merged.counts;
    let written = match verdict {
        None => {
            counts.created = 1;
            true
        }
        Some(Verdict::Unchanged) => {
            counts.unchanged = 1;
            false
        }
        Some(Verdict::Replace) => {
            counts.updated = 1;
            if let Some(undo) = lane.undo
                && let Some(live) = at(lane, &entry.root, &entry.path).await?
            {
                undo.keep_entry(lane.name, live).await?;
            }
            true
        }
        Some(Verdict::Copy) => match free(lane, way, collection, &mut entry).await? {
            Some(path) => {
                counts.copied = 1;
                let (key, new_key) = (key(&entry.path), key(&path));
                entry.path = path;
                merged.examples.push(MergeExample::Copied { key, new_key });
                true
            }
            // An earlier import of the same archive made it.
            None => {
                counts.unchanged = 1;
                false
            }
        },
        Some(Verdict::Skip(reason) | Verdict::SkipAll(reason)) => {
            counts.skipped = 1;
            let is_folder = matches!(entry.kind, EntryKind::Directory);
            if let (Some(Verdict::SkipAll(_)), true, false) = (verdict, is_folder, is_blocked) {
                *blocked = Some((entry.root.clone(), entry.path.clone()));
            }
            let key = key(&entry.path);
            watch.tell(Event::Skipped {
                store: lane.name.to_owned(),
                collection: entry.root.clone(),
                key: key.clone(),
                reason,
            });
            merged.examples.push(MergeExample::Skipped { key, reason });
            false
        }
    };
    if written {
        return Ok((Some(entry), merged));
    }
    if let EntryKind::File { body, .. } = &mut entry.kind {
        while body.try_next().await?.is_some() {}
    }
    Ok((None, merged))
}

/// As events and examples have it.
fn key(path: &EntryPath) -> String {
    match std::str::from_utf8(path.as_bytes()) {
        Ok(text) => Key::from(text).to_string(),
        Err(_) => Key::bytes(path.as_bytes()).to_string(),
    }
}

async fn at(lane: Lane<'_>, root: &str, path: &EntryPath) -> Result<Option<FileEntry>> {
    let found = guarded(lane.name, lane.session.existing_entry(root, path)).await;
    found.map_err(|e| e.on(path))
}

/// A name for a copy that the store does not use; `None` where it has the same copy.
async fn free(
    lane: Lane<'_>,
    way: &Way,
    collection: &str,
    entry: &mut FileEntry,
) -> Result<Option<EntryPath>> {
    let resolver = way.resolver(collection)?;
    for attempt in 0..MAX_NAMES {
        let path = resolver.copy_path(&entry.path, attempt)?;
        match at(lane, &entry.root, &path).await? {
            None => return Ok(Some(path)),
            Some(mut live) => {
                if same(lane, entry, &mut live).await? {
                    return Ok(None);
                }
            }
        }
    }
    let what = format!("{MAX_NAMES} names for a copy are all in use");
    Err(Error::new(ErrorKind::Conflict, what)
        .on(&entry.path)
        .on(lane.name)
        .advise("remove copies from earlier imports, or choose another rule"))
}

/// Whether the two are the same but for their paths. The body of `archived` can be read from its
/// start afterwards, unless they are.
async fn same(lane: Lane<'_>, archived: &mut FileEntry, live: &mut FileEntry) -> Result<bool> {
    if (archived.mode, archived.modified) != (live.mode, live.modified) {
        return Ok(false);
    }
    Ok(match (&mut archived.kind, &mut live.kind) {
        (EntryKind::Directory, EntryKind::Directory) => true,
        (EntryKind::Symlink { target: a }, EntryKind::Symlink { target: b }) => a == b,
        (EntryKind::File { len: a, body: ours }, EntryKind::File { len: b, body: theirs })
            if a == b =>
        {
            let Some((begin, rest)) = parting(take(ours), take(theirs)).await? else {
                return Ok(true);
            };
            // What both begin with stands in the live file.
            let again = match at(lane, &live.root, &live.path).await?.map(|entry| entry.kind) {
                Some(EntryKind::File { body, .. }) => body,
                _ => stream::empty().boxed(),
            };
            *ours = first(again, begin).chain(rest).boxed();
            false
        }
        _ => false,
    })
}

fn take(body: &mut ByteStream) -> ByteStream {
    std::mem::replace(body, stream::empty().boxed())
}

/// Reads two bodies side by side. `None`: they are the same. Else how many bytes both begin with,
/// and the rest of the first.
async fn parting(a: ByteStream, b: ByteStream) -> Result<Option<(u64, ByteStream)>> {
    let (mut a, mut b) = (a, pin!(b));
    let (mut ours, mut theirs) = (Bytes::new(), Bytes::new());
    let mut alike = 0;
    loop {
        while ours.is_empty()
            && let Some(piece) = a.try_next().await?
        {
            ours = piece;
        }
        while theirs.is_empty()
            && let Some(piece) = b.try_next().await?
        {
            theirs = piece;
        }
        let both = ours.len().min(theirs.len());
        if ours[..both] != theirs[..both] || (both == 0 && ours.len() != theirs.len()) {
            let rest = stream::once(async { Ok(ours) }).chain(a).boxed();
            return Ok(Some((alike, rest)));
        }
        if both == 0 {
            return Ok(None);
        }
        ours.advance(both);
        theirs.advance(both);
        alike += both as u64;
    }
}

/// So many bytes of a body.
fn first(body: ByteStream, len: u64) -> ByteStream {
    let cut = move |left: &mut u64, piece: Result<Bytes>| {
        let piece = piece.map(|mut piece| {
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
            piece
        });
        std::future::ready(
            (*left > 0 || !matches!(&piece, Ok(piece) if piece.is_empty())).then_some(piece),
        )
    };
    body.scan(len, cut).boxed()
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    fn pieces(pieces: &[&'static str]) -> ByteStream {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from(*piece))).collect();
        stream::iter(pieces).boxed()
    }

    #[test]
    fn bodies_are_the_same_however_they_are_cut_and_what_differs_is_not_lost() {
        for (a, b, alike) in [
            (&["abc", "", "def"][..], &["a", "bcde", "f"][..], None),
            (&[], &[""], None),
            (&["abc"], &["abd"], Some(0)),
            (&["ab", "cd"], &["a", "bcx"], Some(2)),
            (&["abcd"], &["ab"], Some(2)),
            (&["ab"], &["ab", "cd"], Some(2)),
        ] {
            let parted = block_on(parting(pieces(a), pieces(b))).unwrap();
            assert_eq!(parted.as_ref().map(|(alike, _)| *alike), alike, "{a:?} {b:?}");
            let Some((alike, rest)) = parted else { continue };
            let whole = first(pieces(b), alike).chain(rest).try_collect::<Vec<_>>();
            let whole = block_on(whole).unwrap().concat();
            assert_eq!(whole, a.concat().as_bytes(), "{a:?} {b:?}");
        }
    }
}
