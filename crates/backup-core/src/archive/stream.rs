//! The asynchronous edge of reading: parts as a stream, from a thread of its own.

use std::{
    collections::HashSet,
    pin::Pin,
    task::{Context, Poll},
    thread,
};

use futures::{SinkExt as _, Stream, StreamExt as _, channel::mpsc, executor::block_on};

use super::{
    assemble::Assembler,
    entry::{EntryHead, PartEntry, PartKind},
    reader::Archive,
    scan::Scan,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    part::{Blob, EntryKind, EntryPath, FileEntry, Part, Schema, byte_stream},
    record::canonical,
};

/// Bodies up to this length travel as one piece, already checked; longer ones in pieces of it, or
/// each that waits would keep a segment.
const PIECE: usize = 1 << 20;

/// Parts of an archive with their stores; see [`Archive::stream`].
pub struct PartStream {
    parts: mpsc::Receiver<Result<(String, Part)>>,
}

impl Stream for PartStream {
    type Item = Result<(String, Part)>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.parts.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for PartStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PartStream")
    }
}

type Sender = mpsc::Sender<Result<(String, Part)>>;

impl Archive {
    /// The parts of `stores`, as a sink takes them, in the order of the archive.
    ///
    /// A thread of its own reads ahead, within bounds, and ends when the stream is dropped.
    /// Schemas, records and small bodies are checked before they come out; the hash of a
    /// longer body is checked at its end, where a mismatch is an error in the body. An error
    /// ends the stream. Bodies come one after the other: the next part waits until the body
    /// before it was read or dropped.
    ///
    /// # Errors
    /// No thread can be started; everything else comes through the stream.
    pub fn stream(&self, stores: &[String], cancel: &Cancel) -> Result<PartStream> {
        let stores: HashSet<String> = stores.iter().cloned().collect();
        self.stream_parts(move |part| part.kind.store().is_some_and(|s| stores.contains(s)), cancel)
    }

    /// As [`stream`](Self::stream), of the wanted parts. Who wants records, wants their vectors.
    pub(crate) fn stream_parts(
        &self,
        wanted: impl Fn(&PartEntry) -> bool + Send + 'static,
        cancel: &Cancel,
    ) -> Result<PartStream> {
        let scan = self.scan(wanted, cancel)?;
        let archive = self.clone();
        let (mut sender, parts) = mpsc::channel(1);
        thread::Builder::new()
            .name("backup-reader".into())
            .spawn(move || {
                if let Err(error) = run(&archive, scan, &mut sender) {
                    // Nobody listens: the stream was dropped.
                    let _ = block_on(sender.send(Err(error)));
                }
            })
            .map_err(|e| Error::io("could not start a thread", e))?;
        Ok(PartStream { parts })
    }
}

// The reader of the stream went away.
fn gone() -> Error {
    Error::new(ErrorKind::Cancelled, "the stream was dropped")
}

fn run(archive: &Archive, mut scan: Scan, sender: &mut Sender) -> Result<()> {
    let send = |sender: &mut Sender, store: String, part: Part| {
        block_on(sender.send(Ok((store, part)))).map_err(|_| gone())
    };
    let mut batch = Assembler::default();
    while let Some(entry) = scan.next_part()? {
        if !matches!(entry.kind, PartKind::Vector { .. })
            && let Some((store, records)) = batch.finish()?
        {
            send(sender, store, Part::Records(records))?;
        }
        let store = entry.kind.store().unwrap_or_default().to_owned();
        match entry.kind.clone() {
            PartKind::Records { .. } | PartKind::Vector { .. } => {
                let content = scan.whole()?;
                batch.take(&entry, content)?;
            }
            PartKind::Schema { store, collection } => {
                let document = canonical::parse(&scan.whole()?).map_err(|e| e.on(&entry.path))?;
                let known = archive.manifest().stores.get(&store);
                let known = known.and_then(|s| s.collections.get(&collection));
                let info = known.map(|c| c.info.clone()).unwrap_or_default();
                send(sender, store, Part::Schema(Schema { collection, document, info }))?;
            }
            PartKind::Blob { name, masked, metadata, .. } => {
                let masked = masked.iter().map(|(start, end)| *start..*end).collect();
                body(&mut scan, &entry, sender, |body| {
                    Part::Blob(Blob { name, len: Some(entry.size), masked, metadata, body })
                })?;
            }
            PartKind::Entry { root, name, mode, modified, entry: head, .. } => {
                let path = EntryPath::new(&name)?;
                let part = |kind| Part::Entry(FileEntry { root, path, mode, modified, kind });
                match head {
                    EntryHead::File => {
                        let len = entry.size;
                        body(&mut scan, &entry, sender, |body| {
                            part(EntryKind::File { len, body })
                        })?;
                    }
                    EntryHead::Directory => send(sender, store, part(EntryKind::Directory))?,
                    EntryHead::Symlink(target) => {
                        send(sender, store, part(EntryKind::Symlink { target }))?;
                    }
                }
            }
            _ => {}
        }
    }
    if let Some((store, records)) = batch.finish()? {
        send(sender, store, Part::Records(records))?;
    }
    Ok(())
}

// Sends a part with its body: in one piece, or through a channel while the thread reads on.
fn body(
    scan: &mut Scan,
    entry: &PartEntry,
    sender: &mut Sender,
    part: impl FnOnce(crate::part::ByteStream) -> Part,
) -> Result<()> {
    let store = entry.kind.store().unwrap_or_default().to_owned();
    if entry.size <= PIECE as u64 {
        let bytes = scan.whole()?;
        return block_on(sender.send(Ok((store, part(byte_stream(bytes)))))).map_err(|_| gone());
    }
    let (mut pieces, stream) = mpsc::channel(1);
    block_on(sender.send(Ok((store, part(stream.boxed()))))).map_err(|_| gone())?;
    loop {
        match scan.chunk() {
            Ok(None) => return Ok(()),
            // A body that was dropped is passed over, and still checked.
            Ok(Some(mut chunk)) => {
                while !chunk.is_empty() {
                    let piece = chunk.split_to(PIECE.min(chunk.len()));
                    let _ = block_on(pieces.send(Ok(piece)));
                }
            }
            Err(error) => {
                let copy = Error::new(error.kind(), error.to_string()).advise(error.advice());
                let _ = block_on(pieces.send(Err(error)));
                return Err(copy);
            }
        }
    }
}
