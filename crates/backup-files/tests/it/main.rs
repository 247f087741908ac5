//! Folders on a real file system, backed up and restored part by part.
#![cfg(unix)]

mod changes;
mod conformance;
mod crash;
mod hostile;
mod left_out;
mod merge;
mod round_trip;
mod switching;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use backup_core::{
    Cancel, CollectionEnd, Content, EntryFacts, EntryKind, EntryPath, FileEntry, Notice,
    NoticeKind, Part, PinRequest, Pinned, Reattached, Result, Schema, Sink, SinkSession, Source,
    StagePlan, StageToken, Summary,
    record::{Sha256Digest, Tally},
};
use backup_files::FilesStore;
use futures::StreamExt;
pub(crate) use futures::executor::block_on;

/// A backup, held in memory.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) schemas: Vec<Schema>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) ends: Vec<CollectionEnd>,
    pub(crate) summary: Summary,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) root: String,
    pub(crate) path: EntryPath,
    pub(crate) mode: u32,
    pub(crate) modified: (i64, u32),
    pub(crate) kind: Kind,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Folder,
    Link(Vec<u8>),
}

pub(crate) fn take(store: &FilesStore) -> Result<Taken> {
    take_with(store, &PinRequest::new(), |_| ())
}

/// `meanwhile` is called with every entry before its body is read.
pub(crate) fn take_with(
    store: &FilesStore,
    request: &PinRequest,
    mut meanwhile: impl FnMut(&FileEntry),
) -> Result<Taken> {
    block_on(async {
        let Pinned::Live { session, .. } = store.pin(request).await? else {
            panic!("a folder cannot be pinned");
        };
        let mut taken = Taken::default();
        for partition in session.partitions().await? {
            while let Some(part) = session.next(&partition).await? {
                match part {
                    Part::Schema(schema) => taken.schemas.push(schema),
                    Part::Entry(entry) => {
                        meanwhile(&entry);
                        taken.entries.push(own(entry).await?);
                    }
                    Part::Notice(notice) => taken.notices.push(notice),
                    Part::End(end) => taken.ends.push(end),
                    other => panic!("{other:?}"),
                }
            }
        }
        taken.summary = session.close().await?;
        Ok(taken)
    })
}

pub(crate) async fn own(entry: FileEntry) -> Result<Entry> {
    let FileEntry { root, path, mode, modified, kind } = entry;
    let kind = match kind {
        EntryKind::Directory => Kind::Folder,
        EntryKind::Symlink { target } => Kind::Link(target),
        // As the engine does: exactly so many bytes, cut or padded.
        EntryKind::File { len, mut body } => {
            let mut bytes = Vec::new();
            while let Some(piece) = body.next().await.transpose()? {
                bytes.extend_from_slice(&piece);
            }
            bytes.resize(usize::try_from(len).unwrap(), 0);
            Kind::File(bytes)
        }
    };
    Ok(Entry { root, path, mode, modified, kind })
}

impl Taken {
    pub(crate) fn content(&self) -> Content {
        let mut content = Content::new();
        for schema in &self.schemas {
            content.collections.insert(schema.collection.clone(), Tally::new());
        }
        for entry in &self.entries {
            let sha256;
            let facts = match &entry.kind {
                Kind::Folder => EntryFacts::Directory,
                Kind::Link(target) => EntryFacts::Symlink { target },
                Kind::File(bytes) => {
                    sha256 = Sha256Digest::of(bytes);
                    EntryFacts::File { len: bytes.len() as u64, sha256: &sha256 }
                }
            };
            let line = FileEntry::line(&entry.path, entry.mode, entry.modified, facts);
            content.collections.entry(entry.root.clone()).or_default().add_line(&line);
        }
        content
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.path.to_string()).collect()
    }

    pub(crate) fn kinds(&self) -> Vec<(NoticeKind, &str)> {
        let mut kinds: Vec<_> =
            self.notices.iter().map(|notice| (notice.kind, notice.subject.as_str())).collect();
        kinds.sort_by_key(|(_, subject)| subject.to_owned());
        kinds
    }

    pub(crate) fn is_partial(&self) -> bool {
        self.notices.iter().any(|notice| notice.kind.makes_partial())
    }

    pub(crate) fn plan(&self, id: &str) -> StagePlan {
        let mut plan = StagePlan::new(id, "store", "files");
        plan.content = self.content();
        plan
    }
}

impl Entry {
    pub(crate) fn part(&self) -> Part {
        let kind = match &self.kind {
            Kind::Folder => EntryKind::Directory,
            Kind::Link(target) => EntryKind::Symlink { target: target.clone() },
            Kind::File(bytes) => {
                // In pieces, as an archive gives them.
                let pieces: Vec<_> = bytes.chunks(300_000).map(|p| Ok(p.to_vec().into())).collect();
                EntryKind::File {
                    len: bytes.len() as u64,
                    body: futures::stream::iter(pieces).boxed(),
                }
            }
        };
        let (root, path) = (self.root.clone(), self.path.clone());
        Part::Entry(FileEntry { root, path, mode: self.mode, modified: self.modified, kind })
    }
}

/// Writes everything of a backup into staging.
pub(crate) fn fill(session: &dyn SinkSession, taken: &Taken) -> Result<()> {
    block_on(async {
        for schema in &taken.schemas {
            session.write(Part::Schema(schema.clone())).await?;
        }
        for entry in &taken.entries {
            session.write(entry.part()).await?;
        }
        for end in &taken.ends {
            session.write(Part::End(end.clone())).await?;
        }
        Ok(())
    })
}

/// From prepare to staged and verified.
pub(crate) fn stage(
    store: &FilesStore,
    taken: &Taken,
    plan: &StagePlan,
) -> Result<(StageToken, Box<dyn SinkSession>)> {
    let prepared = block_on(store.prepare(plan))?;
    let session = block_on(store.begin(&prepared.token, &Cancel::new()))?;
    fill(&*session, taken)?;
    verified(&*session, taken);
    Ok((prepared.token, session))
}

/// A whole restore.
pub(crate) fn restore(store: &FilesStore, taken: &Taken) -> Result<()> {
    let (token, session) = stage(store, taken, &taken.plan("r1"))?;
    block_on(session.commit())?;
    verified(&*session, taken);
    block_on(session.finish())?;
    assert!(matches!(block_on(store.reattach(&token))?, Reattached::Absent));
    Ok(())
}

#[track_caller]
pub(crate) fn verified(session: &dyn SinkSession, taken: &Taken) {
    let content = taken.content();
    assert_eq!(block_on(session.verify(&content)).unwrap(), content);
}

/// One entry by hand.
pub(crate) fn entry(path: impl AsRef<[u8]>, kind: Kind) -> Entry {
    let mode = match kind {
        Kind::Folder => 0o755,
        Kind::Link(_) => 0o777,
        Kind::File(_) => 0o644,
    };
    let path = EntryPath::new(path).unwrap();
    Entry { root: "root".into(), path, mode, modified: (1_700_000_000, 5), kind }
}

/// Everything below a folder, the folder itself not: kind, mode, time, content.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let content = if facts.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if facts.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().to_owned();
            found.insert(name, (facts.mode(), facts.mtime(), facts.mtime_nsec(), content));
        }
    }
    found
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Ends what a test does beside the check, also when the check fails: or it would never end.
pub(crate) struct Stop<'a>(pub(crate) &'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// What lies in a folder, by name.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|item| item.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A folder with a bit of everything.
pub(crate) fn sample(root: &Path) {
    fs::create_dir_all(root.join("docs/deep/er")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::write(root.join("docs/a.txt"), "first").unwrap();
    fs::write(root.join("docs/deep/b"), vec![7; 70_000]).unwrap();
    fs::write(root.join("docs.txt"), "after the folder").unwrap();
    fs::write(root.join("none"), "").unwrap();
    std::os::unix::fs::symlink("docs/a.txt", root.join("link")).unwrap();
    chmod(&root.join("docs/a.txt"), 0o640);
    chmod(&root.join("empty"), 0o700);
}
