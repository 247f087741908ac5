//! A snapshot as a part of an archive, its checksum compared while it passes.

use std::io::{self, Read};

use backup_core::{Blob, Error, ErrorKind, Metadata, Part, Result};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::rdb::CRC;

/// What the part is called.
pub(crate) const DUMP: &str = "dump.rdb";

/// Bytes of one piece.
const PIECE: usize = 256 << 10;
/// Pieces that are read ahead.
const AHEAD: usize = 8;
/// Bytes of the checksum at the end.
const SUM: usize = 8;

/// Hands a snapshot of `len` bytes over as one part. Blocks until it was taken, or nobody wants
/// it any more.
///
/// # Errors
/// What comes before the first byte; later errors are in the part's body.
pub(crate) fn dump(
    input: impl Read,
    len: Option<u64>,
    metadata: Metadata,
    send: &mpsc::Sender<Result<Part>>,
) {
    let (pieces, mut body) = mpsc::channel::<Result<Bytes>>(AHEAD);
    let body = stream::poll_fn(move |cx| body.poll_recv(cx)).boxed();
    let name = DUMP.to_owned();
    let blob = Blob { name, len, masked: Vec::new(), metadata, body };
    if send.blocking_send(Ok(Part::Blob(blob))).is_err() {
        return;
    }
    let passed = pass(input, |piece| pieces.blocking_send(Ok(piece)).is_ok());
    if let Err(error) = passed {
        // Nobody reads what was dropped.
        let _ = pieces.blocking_send(Err(error));
    }
}

/// Passes a snapshot on piece by piece, for as long as `take` wants it, and compares its
/// checksum: that of all bytes before the last eight, which hold it.
pub(crate) fn pass(mut input: impl Read, mut take: impl FnMut(Bytes) -> bool) -> Result<()> {
    let mut digest = CRC.digest();
    let mut first = true;
    // The last bytes are held back: they may be the checksum.
    let mut held: Vec<u8> = Vec::new();
    loop {
        let mut piece = vec![0; PIECE];
        let n = fill(&mut input, &mut piece)
            .map_err(|e| Error::io("a snapshot could not be read", e))?;
        piece.truncate(n);
        if first && !piece.starts_with(b"REDIS") && !piece.starts_with(b"VALKEY") {
            return Err(corrupt("this is not a snapshot of Redis or Valkey"));
        }
        first = false;
        held.extend_from_slice(&piece);
        let sure = held.len().saturating_sub(SUM);
        digest.update(&held[..sure]);
        held.drain(..sure);
        if n > 0 && !take(piece.into()) {
            return Ok(());
        }
        if n < PIECE {
            break;
        }
    }
    let sum: [u8; SUM] = held.try_into().map_err(|_| corrupt("a snapshot is cut"))?;
    // Zero: the server does not compute it.
    let sum = u64::from_le_bytes(sum);
    if sum != 0 && sum != digest.finalize() {
        return Err(corrupt("the checksum of a snapshot is wrong"));
    }
    Ok(())
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what).advise("take another snapshot")
}

/// Less than asked for only at the end.
fn fill(input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match input.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
