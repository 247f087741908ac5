//! One root, part by part: what runs on the thread of a session.

use std::{io::Read, mem, thread};

use backup_core::{
    Cancel, CollectionEnd, EntryKind, EntryPath, Error, FileEntry, Notice, NoticeKind, Part,
    Result, Schema, byte_stream, manifest::CollectionInfo,
};
use bytes::Bytes;
use rustix::{fs::FileType, io::Errno};
use tempfile::SpooledTempFile;

use crate::{
    config::Root,
    guard::{Guard, OpenFile},
    read::{self, SMALL, Taken, Trouble},
    sys::{self, Stamp},
    walk::{Step, Walk},
};

/// A batch ends after so many parts or so many bytes.
const BATCH_PARTS: usize = 128;
const BATCH_BYTES: u64 = 2 * SMALL;

/// Pieces of large files.
const PIECE: usize = 1 << 20;

/// What a database's log is called beside it, but for SQLite's.
const LOG: &[u8] = b".wal";

/// The times that every usual file system can hold; others are nonsense.
pub(crate) const TIMES: std::ops::Range<i64> = -(1 << 31)..(1 << 34);

/// What the thread hands over; never many at a time.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Item {
    Part(Part),
    /// A file whose bytes follow through [`Reader::piece`]; the last of its batch.
    Large(Header),
}

/// An entry but for its content.
pub(crate) struct Header {
    pub(crate) path: EntryPath,
    pub(crate) mode: u32,
    pub(crate) modified: (i64, u32),
    pub(crate) len: u64,
}

pub(crate) struct Reader {
    root: Root,
    walk: Option<Walk<Folder>>,
    guard: Guard,
    cancel: Cancel,
    /// The mode of the root itself.
    mode: u32,
    large: Option<Large>,
    out: Vec<Item>,
    bytes: u64,
    count: u64,
    pub(crate) excluded: u64,
    remarked: Vec<&'static str>,
    /// Something was seen to change.
    pub(crate) changed: bool,
    begun: bool,
    /// What is changed after reading began has a later time than this.
    since: (i64, u32),
}

/// What is kept of a folder while the walk is in it.
#[derive(Default)]
struct Folder {
    stamp: Option<Stamp>,
    /// Members of a group that were taken when the first of them was met.
    taken: Vec<(Vec<u8>, Taken<SpooledTempFile>)>,
    /// What must be the same when the folder is left, and what it is a sign of if not.
    watched: Vec<(Vec<u8>, Stamp, &'static str)>,
}

/// A file that is read piece by piece.
struct Large {
    name: Vec<u8>,
    stamp: Stamp,
    body: Body,
    given: u64,
    ended: bool,
    failed: Option<std::io::Error>,
}

enum Body {
    Live(OpenFile),
    Spooled(SpooledTempFile),
}

impl Reader {
    pub(crate) fn new(root: Root, guard: Guard, cancel: Cancel) -> Result<Self> {
        let missing = |e: Errno| {
            Error::io("a root cannot be opened", e.into())
                .on(root.path.display())
                .advise("check the path of the root, and that it is a folder")
        };
        let handle = sys::open_path(&root.path).map_err(missing)?;
        let stamp = sys::stat_fd(&handle).map_err(missing)?;
        let mut walk = Walk::<Folder>::new(handle).map_err(missing)?;
        walk.data_mut().stamp = Some(stamp);
        let mut reader = Self {
            root,
            walk: Some(walk),
            guard,
            cancel,
            mode: stamp.mode(),
            large: None,
            out: Vec::new(),
            bytes: 0,
            count: 0,
            excluded: 0,
            remarked: Vec::new(),
            changed: false,
            begun: false,
            since: read::now(),
        };
        reader.watch_pointer();
        Ok(reader)
    }

    /// Whether anything was changed since the session began; `None` where it was not read to
    /// its end.
    ///
    /// Looks at every entry again, at its times only.
    pub(crate) fn summary(&mut self) -> Result<Option<bool>> {
        if self.walk.is_some() || self.changed {
            return Ok(self.changed.then_some(true));
        }
        let later = |stamp: &Stamp| stamp.changed >= self.since;
        let Ok(handle) = sys::open_path(&self.root.path) else { return Ok(Some(true)) };
        if sys::stat_fd(&handle).is_ok_and(|stamp| later(&stamp)) {
            return Ok(Some(true));
        }
        let Ok(mut walk) = Walk::<()>::new(handle) else { return Ok(None) };
        while let Some(step) = walk.step() {
            if self.cancel.is_cancelled() {
                return Ok(None);
            }
            let stamp = match (step, walk.stat()) {
                (Step::Up { .. }, _) => continue,
                (Step::Name, Ok(stamp)) => stamp,
                _ => return Ok(Some(true)),
            };
            let is_folder = stamp.kind == FileType::Directory;
            let (dir, names, name, path) = (walk.dir(), walk.names(), walk.name(), walk.path());
            if self.root.exclude.matches(path, is_folder)
                || self.guard.forbids(dir, names, name, path, &stamp).is_some()
            {
                continue;
            }
            if later(&stamp) {
                return Ok(Some(true));
            }
            if is_folder {
                // One that cannot be read was reported.
                let _ = walk.enter();
            }
        }
        Ok(Some(false))
    }

    /// The next parts, in order; none at the end.
    pub(crate) fn batch(&mut self) -> Result<Vec<Item>> {
        self.bytes = 0;
        if !self.begun {
            self.begun = true;
            // From here on every change has a later time than `since`.
            thread::sleep(read::TICK);
            self.out.push(Item::Part(Part::Schema(Schema {
                collection: self.root.name.clone(),
                document: serde_json::json!({
                    "exclude": self.root.exclude.globs(),
                    "mode": self.mode,
                }),
                info: CollectionInfo::default(),
            })));
            if !self.guard.sees_open_files {
                self.remark("this system does not tell which files the process has open");
            }
        }
        self.end_large();
        while self.out.len() < BATCH_PARTS && self.bytes < BATCH_BYTES && self.large.is_none() {
            self.cancel.check()?;
            let Some(walk) = &mut self.walk else { break };
            match walk.step() {
                Some(Step::Name) => self.visit(),
                Some(Step::Up { folder, data }) => self.leave(&folder, &data),
                Some(Step::Lost(errno)) => {
                    self.changed = true;
                    self.trouble(
                        NoticeKind::Changed,
                        &format!("the folder was moved while it was read: {errno}"),
                    );
                }
                None => {
                    if let Some(mut walk) = self.walk.take() {
                        let data = mem::take(walk.data_mut());
                        self.check_folder(walk.dir(), b"", &data);
                    }
                    self.out.push(Item::Part(Part::End(CollectionEnd {
                        collection: self.root.name.clone(),
                        count: Some(self.count),
                        ..CollectionEnd::default()
                    })));
                }
            }
        }
        Ok(mem::take(&mut self.out))
    }

    /// The next piece of the large file that ended the last batch.
    pub(crate) fn piece(&mut self) -> Result<Option<Bytes>> {
        self.cancel.check()?;
        let Some(large) = self.large.as_mut().filter(|large| !large.ended) else {
            return Ok(None);
        };
        // One byte more than expected shows that the file has grown.
        let left = (large.stamp.size + 1).saturating_sub(large.given).min(PIECE as u64);
        let mut piece = Vec::with_capacity(usize::try_from(left).unwrap_or(PIECE));
        let read = match &mut large.body {
            Body::Live(file) => file.file().take(left).read_to_end(&mut piece),
            Body::Spooled(file) => file.take(left).read_to_end(&mut piece),
        };
        if let Err(error) = read {
            large.failed = Some(error);
        }
        large.given += piece.len() as u64;
        large.ended = large.failed.is_some() || piece.is_empty() || large.given > large.stamp.size;
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    /// Compares a large file with what it was before.
    fn end_large(&mut self) {
        let (Some(large), Some(walk)) = (self.large.take(), &self.walk) else { return };
        if let Some(error) = large.failed {
            return self.trouble(NoticeKind::Unreadable, &error.to_string());
        }
        let Body::Live(file) = &large.body else { return };
        if read::unchanged(file, walk.dir(), &large.name, &large.stamp) {
            return;
        }
        self.changed = true;
        // The engine sees for itself that the length is another, or wanted no more of it.
        if large.given == large.stamp.size {
            match sys::stat_at(walk.dir(), &large.name) {
                Err(Errno::NOENT) => {
                    self.trouble(NoticeKind::Vanished, "was removed while it was read");
                }
                _ => self.trouble(NoticeKind::Changed, "was written to while it was read"),
            }
        }
    }

    fn visit(&mut self) {
        let Some(walk) = &self.walk else { return };
        let stamp = match walk.stat() {
            Ok(stamp) => stamp,
            Err(errno) => return self.unread(errno.into()),
        };
        let is_folder = stamp.kind == FileType::Directory;
        if self.root.exclude.matches(walk.path(), is_folder) {
            self.excluded += 1;
            return;
        }
        if let Some((kind, why)) = forbidden(&mut self.guard, walk, &stamp) {
            return self.trouble(kind, why);
        }
        let Ok(path) = EntryPath::new(walk.path()) else {
            return self.trouble(NoticeKind::Unsupported, "the path is too long");
        };
        if stamp.bits & 0o7000 != 0 {
            self.remark("setuid, setgid and sticky bits are not kept");
        }
        match stamp.kind {
            FileType::Directory => self.folder(path, &stamp),
            FileType::Symlink => self.link(path, &stamp),
            FileType::RegularFile => self.file(path, &stamp),
            _ => self.trouble(
                NoticeKind::Unsupported,
                "is no file, folder or link and cannot be carried",
            ),
        }
    }

    fn link(&mut self, path: EntryPath, stamp: &Stamp) {
        let Some(walk) = &self.walk else { return };
        match rustix::fs::readlinkat(walk.dir(), walk.name(), Vec::new()) {
            Ok(target) => {
                self.entry(path, stamp, EntryKind::Symlink { target: target.into_bytes() });
            }
            // It was a link a moment ago.
            Err(Errno::INVAL) => self.unread(Trouble::Became),
            Err(errno) => self.unread(errno.into()),
        }
    }

    fn folder(&mut self, path: EntryPath, stamp: &Stamp) {
        let Some(walk) = &mut self.walk else { return };
        match walk.enter() {
            Ok(()) => {
                walk.data_mut().stamp = Some(*stamp);
                let attributes = sys::has_attributes(walk.dir());
                self.remark_attributes(attributes);
                self.entry(path, stamp, EntryKind::Directory);
                self.guard.refresh();
                self.watch_pointer();
            }
            Err(Errno::NOENT) => self.unread(Trouble::Vanished),
            Err(Errno::LOOP | Errno::NOTDIR) => self.unread(Trouble::Became),
            Err(errno) => {
                self.entry(path, stamp, EntryKind::Directory);
                self.unread(Trouble::Unreadable(errno.into()));
            }
        }
    }

    /// A file `CURRENT` names one of the folders beside it: both have to be of one moment.
    fn watch_pointer(&mut self) {
        let Some(walk) = &mut self.walk else { return };
        const POINTER: &[u8] = b"CURRENT";
        if !walk.names().contains(POINTER) {
            return;
        }
        if let Ok(stamp) = sys::stat_at(walk.dir(), POINTER) {
            let sign = "was changed while the folders beside it were read";
            walk.data_mut().watched.push((POINTER.to_vec(), stamp, sign));
        }
    }

    fn file(&mut self, path: EntryPath, stamp: &Stamp) {
        if stamp.links > 1 {
            self.remark("hard links are kept as files of their own");
        }
        if stamp.blocks.saturating_mul(512) < stamp.size {
            self.remark("holes in sparse files are kept as zeros");
        }
        if let Some(taken) = self.take_group(stamp) {
            return self.give(path, taken);
        }
        let Some(walk) = &self.walk else { return };
        let taken = if stamp.size <= SMALL {
            read::whole(&self.guard.open_files, walk.dir(), walk.name())
        } else {
            Err(Trouble::Outgrown)
        };
        match taken {
            Ok(taken) => {
                if taken.torn {
                    self.changed = true;
                    self.trouble(NoticeKind::Changed, "changed every time that it was read");
                }
                self.remark_attributes(taken.attributes);
                self.bytes += taken.body.len() as u64;
                let len = taken.body.len() as u64;
                let body = byte_stream(taken.body);
                self.entry(path, &taken.stamp, EntryKind::File { len, body });
            }
            Err(Trouble::Outgrown) => {
                match read::open(&self.guard.open_files, walk.dir(), walk.name()) {
                    Ok((file, stamp)) => {
                        self.remark_attributes(file.has_attributes());
                        self.large(path, stamp, Body::Live(file));
                    }
                    Err(trouble) => self.unread(trouble),
                }
            }
            Err(trouble) => self.unread(trouble),
        }
    }

    /// A database file and its `.wal` are copied together when the first of them is met; the
    /// other waits until its name comes.
    fn take_group(&mut self, stamp: &Stamp) -> Option<Taken<SpooledTempFile>> {
        let walk = self.walk.as_mut()?;
        let name = walk.name().to_vec();
        let waiting = &mut walk.data_mut().taken;
        if let Some(at) = waiting.iter().position(|(other, _)| *other == name) {
            return Some(waiting.swap_remove(at).1);
        }
        let log = [&name, LOG].concat();
        let log_path = [walk.path(), LOG].concat();
        if !walk.names().contains(&log) || self.root.exclude.matches(&log_path, false) {
            return None;
        }
        let log_stamp = sys::stat_at(walk.dir(), &log).ok()?;
        if log_stamp.kind != FileType::RegularFile {
            return None;
        }
        match read::group(&self.guard.open_files, walk.dir(), &[&name, &log]) {
            Ok(mut files) => {
                let log_file = files.pop()?;
                let base = files.pop()?;
                walk.data_mut().taken.push((log, log_file));
                if base.torn {
                    self.changed = true;
                    self.trouble(
                        NoticeKind::Changed,
                        "it or its .wal changed every time that the two were copied",
                    );
                }
                Some(base)
            }
            // No room for a copy, or one of the two is gone: each is read by itself, and
            // compared when the folder is left.
            Err(_) => {
                let sign = "changed while it and the file beside it were read";
                walk.data_mut().watched.push((name, *stamp, sign));
                walk.data_mut().watched.push((log, log_stamp, sign));
                None
            }
        }
    }

    fn give(&mut self, path: EntryPath, mut taken: Taken<SpooledTempFile>) {
        if taken.stamp.size > SMALL {
            return self.large(path, taken.stamp, Body::Spooled(taken.body));
        }
        let mut body = Vec::new();
        if let Err(error) = taken.body.read_to_end(&mut body) {
            return self.unread(Trouble::Unreadable(error));
        }
        self.bytes += body.len() as u64;
        let len = body.len() as u64;
        self.entry(path, &taken.stamp, EntryKind::File { len, body: byte_stream(body) });
    }

    fn large(&mut self, path: EntryPath, stamp: Stamp, body: Body) {
        let Some(walk) = &self.walk else { return };
        let name = walk.name().to_vec();
        self.count += 1;
        let modified = self.modified(&stamp);
        self.out.push(Item::Large(Header { path, mode: stamp.mode(), modified, len: stamp.size }));
        self.large = Some(Large { name, stamp, body, given: 0, ended: false, failed: None });
    }

    fn entry(&mut self, path: EntryPath, stamp: &Stamp, kind: EntryKind) {
        self.count += 1;
        let modified = self.modified(stamp);
        let root = self.root.name.clone();
        let entry = FileEntry { root, path, mode: stamp.mode(), modified, kind };
        self.out.push(Item::Part(Part::Entry(entry)));
    }

    fn modified(&mut self, stamp: &Stamp) -> (i64, u32) {
        if TIMES.contains(&stamp.modified.0) {
            return stamp.modified;
        }
        self.remark("times that file systems cannot hold are not kept");
        (0, 0)
    }

    fn leave(&mut self, folder: &std::os::fd::OwnedFd, data: &Folder) {
        let path = self.walk.as_ref().map(|walk| walk.path().to_vec()).unwrap_or_default();
        self.check_folder(folder, &path, data);
    }

    /// Compares a folder that was read with what it was before.
    fn check_folder(&mut self, folder: impl std::os::fd::AsFd, path: &[u8], data: &Folder) {
        let now = sys::stat_fd(&folder).ok();
        if !matches!((now, data.stamp), (Some(now), Some(before)) if now.same(&before)) {
            self.changed = true;
        }
        for (name, before, sign) in &data.watched {
            if !sys::stat_at(&folder, name).is_ok_and(|now| now.same(before)) {
                self.changed = true;
                let mut subject = path.to_vec();
                crate::trail::join(&mut subject, name);
                self.notice(NoticeKind::Changed, &subject, sign);
            }
        }
    }

    fn unread(&mut self, trouble: Trouble) {
        self.changed |= !matches!(trouble, Trouble::Unreadable(_));
        match trouble {
            Trouble::Vanished => self.trouble(NoticeKind::Vanished, "was there and is gone"),
            Trouble::Became | Trouble::Outgrown => {
                self.trouble(NoticeKind::Changed, "became something else and was left out");
            }
            Trouble::Unreadable(error) => self.trouble(NoticeKind::Unreadable, &error.to_string()),
        }
    }

    /// A notice about the name that the walk stands at.
    fn trouble(&mut self, kind: NoticeKind, detail: &str) {
        let path = self.walk.as_ref().map(|walk| walk.path().to_vec()).unwrap_or_default();
        self.notice(kind, &path, detail);
    }

    /// Says once for a root what is not carried.
    fn remark(&mut self, detail: &'static str) {
        if !self.remarked.contains(&detail) {
            self.remarked.push(detail);
            self.trouble(NoticeKind::Remark, detail);
        }
    }

    fn remark_attributes(&mut self, found: bool) {
        if found {
            self.remark("extended attributes and access control lists are not kept");
        }
    }

    fn notice(&mut self, kind: NoticeKind, subject: &[u8], detail: &str) {
        self.out.push(Item::Part(Part::Notice(Notice {
            kind,
            collection: self.root.name.clone(),
            subject: String::from_utf8_lossy(subject).into_owned(),
            detail: detail.to_owned(),
        })));
    }
}

/// Why the entry must not be opened, if so: itself, or the other half of its group.
fn forbidden(
    guard: &mut Guard,
    walk: &Walk<Folder>,
    stamp: &Stamp,
) -> Option<(NoticeKind, &'static str)> {
    let (dir, names, name, path) = (walk.dir(), walk.names(), walk.name(), walk.path());
    if let Some(why) = guard.forbids(dir, names, name, path, stamp) {
        return Some(why);
    }
    let parent = &path[..path.len() - name.len()];
    let partner = match name.strip_suffix(LOG) {
        Some(base) if !base.is_empty() => base.to_vec(),
        _ => [name, LOG].concat(),
    };
    if stamp.kind != FileType::RegularFile || !names.contains(&partner) {
        return None;
    }
    let theirs = sys::stat_at(dir, &partner).ok()?;
    guard.forbids(dir, names, &partner, &[parent, &partner].concat(), &theirs)
}
