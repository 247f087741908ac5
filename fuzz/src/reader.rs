//! Everything that a reader of archives does, over hostile bytes.

use arbitrary::{Arbitrary, Unstructured};
use backup_core::{
    Blob, Cancel, EntryKind, FileEntry, Part, Result,
    archive::{Archive, Limits, Salvage, VerifyMode},
};
use futures::{StreamExt as _, executor::block_on};

use crate::forge::Forgery;

/// Bytes as they are, or a forgery.
#[derive(Debug, Arbitrary)]
enum Input {
    Forged(Forgery),
    Raw(Vec<u8>),
}

/// Opens what the input says, reads all of it in every way, and compares their verdicts.
///
/// An input that begins with `raw:` is an archive as it stands.
pub fn reader(data: &[u8]) {
    let bytes = match data.strip_prefix(b"raw:") {
        Some(raw) => raw.to_vec(),
        None => match Unstructured::new(data).arbitrary() {
            Ok(Input::Forged(forgery)) => forgery.archive(),
            Ok(Input::Raw(bytes)) => bytes,
            Err(_) => return,
        },
    };
    let mut limits = Limits::default();
    (limits.total_bytes, limits.memory_bytes, limits.parts) = (64 << 20, 16 << 20, 10_000);
    let Ok(archive) = Archive::with_limits(bytes.clone(), limits) else { return };
    let quick = archive.verify(VerifyMode::Quick, &Cancel::new(), &mut |_| {});
    let _ = archive.preamble();
    let _ = archive.config("app");
    let listed = archive.entries().collect::<Result<Vec<_>>>();
    let Ok(parts) = listed else { return assert!(quick.is_err()) };
    let read = parts.iter().try_for_each(|part| {
        let content = archive.read(part)?;
        assert_eq!(content.len() as u64, part.size, "{}", part.path);
        Ok::<_, backup_core::Error>(())
    });
    let streamed = stream(&archive);
    let extracted = extract(&archive);
    let full = archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {});
    if full.is_ok() {
        // Whatever is called whole can be had, in every way.
        quick.unwrap();
        read.unwrap();
        streamed.unwrap();
        extracted.unwrap();
        salvaged_whole(bytes, parts.len() as u64);
    }
}

fn stream(archive: &Archive) -> Result<()> {
    let stores: Vec<_> = archive.manifest().stores.keys().cloned().collect();
    let mut parts = archive.stream(&stores, &Cancel::new())?;
    block_on(async {
        while let Some(part) = parts.next().await {
            match part?.1 {
                Part::Blob(Blob { mut body, .. })
                | Part::Entry(FileEntry { kind: EntryKind::File { mut body, .. }, .. }) => {
                    while let Some(piece) = body.next().await {
                        piece?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    })
}

fn extract(archive: &Archive) -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    let result = archive.extract(&inside, |_| true, &Cancel::new(), &mut |_| {});
    // Whatever it names, nothing stands outside.
    let outside = std::fs::read_dir(folder.path()).unwrap();
    assert!(outside.into_iter().all(|entry| entry.unwrap().path() == inside));
    result.map(drop)
}

fn salvaged_whole(bytes: Vec<u8>, parts: u64) {
    let salvage = Salvage::from_source(bytes).unwrap();
    let report = salvage.parts(&Cancel::new(), &mut |_, _| Ok(())).unwrap();
    assert_eq!((report.whole, report.lost_count, report.manifest), (parts, 0, true), "{report:?}");
}
