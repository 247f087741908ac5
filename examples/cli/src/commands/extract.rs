//! `extract`: parts of an archive as plain files.

use backup_kit::{Error, ErrorKind, Result, archive::PartEntry};
use globset::GlobSet;
use serde_json::json;

use super::{Context, place};
use crate::{
    args::Extract,
    exit, glob,
    progress::Meter,
    text::{plain, size, things},
};

pub(super) fn run(context: &Context<'_>, args: &Extract) -> Result<u8> {
    let screen = &context.screen;
    let archive = context.open(&args.archive.archive)?;
    let path = place(&archive, &args.archive.archive);
    let wanted = Wanted::new(&args.part)?;
    let (mut parts, mut bytes) = (0_u64, 0);
    for part in archive.entries() {
        let part = part?;
        if wanted.has(&part) {
            parts += 1;
            bytes += part.size;
        }
    }
    if parts == 0 {
        return Err(Error::new(ErrorKind::NotFound, "no part matches")
            .on(args.part.join(", "))
            .advise("`*` does not cross a `/`, `**` does; `tar tzf` lists all parts"));
    }
    let meter = Meter::start(screen, "extracting", Some(bytes));
    let report =
        archive.extract(&args.to, move |part| wanted.has(part), &context.cancel, &mut |bytes| {
            meter.advance(bytes)
        });
    meter.end();
    let report = report?;

    let document = json!({
        "path": path,
        "id": archive.manifest().id,
        "to": args.to.display().to_string(),
        "parts": report.parts,
        "bytes": report.bytes,
    });
    let text = format!(
        "{}, {} into {}\n",
        things(report.parts, "part"),
        size(report.bytes),
        plain(&args.to.display().to_string())
    );
    screen.result(document, &text)?;
    Ok(exit::DONE)
}

/// Which parts are extracted.
struct Wanted(Option<GlobSet>);

impl Wanted {
    fn new(patterns: &[String]) -> Result<Self> {
        Ok(Self(if patterns.is_empty() { None } else { Some(glob::set(patterns, true)?) }))
    }

    fn has(&self, part: &PartEntry) -> bool {
        self.0.as_ref().is_none_or(|globs| globs.is_match(&part.path))
    }
}
