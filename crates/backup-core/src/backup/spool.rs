//! A body of unknown length waits in a temporary file until its length is known.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use crate::{
    cancel::Cancel,
    error::{Error, Result},
    part::{Blob, ByteStream},
    worker::Worker,
};

const PIECE: usize = 256 << 10;

/// Reads the body to its end and puts one of known length in its place. The file has no
/// name, so nothing is left behind however this ends.
pub(super) async fn spool(blob: &mut Blob, dir: &Path, cancel: &Cancel) -> Result<()> {
    let failed = |e| Error::io("a snapshot could not be spooled", e);
    let place = dir.to_owned();
    let file: Worker<File> = Worker::spawn("backup-spool", move || {
        tempfile::tempfile_in(&place).map_err(failed).map_err(|e| e.on(place.display()))
    })?;
    let mut len = 0;
    while let Some(piece) = blob.body.next().await {
        cancel.check()?;
        let piece = piece?;
        len += piece.len() as u64;
        file.call(move |file| file.write_all(&piece).map_err(failed)).await?;
    }
    file.call(move |file| file.rewind().map_err(failed)).await?;
    blob.len = Some(len);
    blob.body = read_back(file);
    Ok(())
}

fn read_back(file: Worker<File>) -> ByteStream {
    stream::try_unfold(file, |file| async move {
        let piece = file
            .call(|file| {
                let mut piece = Vec::with_capacity(PIECE);
                file.take(PIECE as u64)
                    .read_to_end(&mut piece)
                    .map_err(|e| Error::io("a spooled snapshot could not be read", e))?;
                Ok(Bytes::from(piece))
            })
            .await?;
        Ok((!piece.is_empty()).then_some((piece, file)))
    })
    .boxed()
}
