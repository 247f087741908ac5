//! What a live root has at a path, for an engine that merges into it.

use std::{
    io::{self, Read},
    sync::Arc,
};

use backup_core::{ByteStream, EntryKind, EntryPath, Error, ErrorKind, Result, Worker};
use bytes::Bytes;
use futures::{StreamExt, stream};
use rustix::{fs::FileType, io::Errno};

use crate::{
    guard::{OpenFile, OpenFiles},
    merge::{Tree, split},
    notes::Facts,
    place::Place,
    stage::in_use,
    sys::{self, fail},
};

/// Pieces of a body.
const PIECE: u64 = 1 << 20;

/// A live root, opened when it is first asked for.
#[derive(Default)]
pub(crate) struct Live {
    tree: Option<Tree>,
    open_files: Arc<OpenFiles>,
}

/// What is there.
pub(crate) enum What {
    Folder,
    Link(Vec<u8>),
    File(OpenFile),
}

impl Live {
    pub(crate) fn find(
        &mut self,
        place: &Place,
        path: &EntryPath,
    ) -> Result<Option<(Facts, What)>> {
        let failed = || fail("could not read a live file", path.as_bytes());
        let tree = match &mut self.tree {
            Some(tree) => tree,
            None => match place.live()? {
                Some((root, _)) => self.tree.insert(Tree::new(root, false)),
                None => return Ok(None),
            },
        };
        let (folder, name) = split(path.as_bytes());
        let dir = match tree.folder(folder) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(in_the_way("a folder above it is none in the live root", path));
            }
            other => other.map_err(failed())?,
        };
        let stamp = match sys::stat_at(dir, name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(failed())?,
        };
        let what = match stamp.kind {
            FileType::Directory => What::Folder,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed())?;
                What::Link(target.into_bytes())
            }
            FileType::RegularFile => {
                // Closing it would drop the locks of whoever in this process has it open.
                if self.open_files.held().is_some_and(|held| held.contains(&stamp.id)) {
                    return Err(in_use(path));
                }
                What::File(self.open_files.open(dir, name).map_err(failed())?)
            }
            _ => return Err(in_the_way("what is there is neither file nor folder nor link", path)),
        };
        Ok(Some((Facts::of(&stamp), what)))
    }
}

fn in_the_way(what: &str, path: &EntryPath) -> Error {
    Error::new(ErrorKind::Conflict, what).on(path).advise("move away what is live")
}

impl What {
    pub(crate) fn mode(&self, facts: &Facts) -> u32 {
        if matches!(self, Self::Link(_)) { 0o777 } else { facts.bits & 0o777 }
    }

    /// `worker` is the thread that reads bodies.
    pub(crate) fn kind<S: 'static>(self, worker: &Arc<Worker<S>>, len: u64) -> EntryKind {
        match self {
            Self::Folder => EntryKind::Directory,
            Self::Link(target) => EntryKind::Symlink { target },
            Self::File(file) => EntryKind::File { len, body: body(worker, file, len) },
        }
    }
}

/// At most `len` bytes, whatever becomes of the file.
fn body<S: 'static>(worker: &Arc<Worker<S>>, file: OpenFile, len: u64) -> ByteStream {
    let start = (Arc::clone(worker), file, len);
    let piece = |(worker, mut file, left): (Arc<Worker<S>>, OpenFile, u64)| async move {
        let read = worker.call(move |_| {
            let mut piece = Vec::new();
            let read = file.file().take(left.min(PIECE)).read_to_end(&mut piece);
            read.map_err(|e: io::Error| Error::io("could not read a live file", e))?;
            Ok((piece, file))
        });
        let (piece, file) = read.await?;
        let left = left - piece.len() as u64;
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), (worker, file, left))))
    };
    stream::try_unfold(start, piece).boxed()
}
