//! `info`: what is in an archive, from its trailer and root.

use backup_kit::Result;
use serde_json::json;

use super::{Context, place};
use crate::{args::Info, describe, exit};

pub(super) fn run(context: &Context<'_>, args: &Info) -> Result<u8> {
    let screen = &context.screen;
    let archive = context.open(&args.archive.archive)?;
    let path = place(&archive, &args.archive.archive);
    let manifest = archive.manifest();
    let document = json!({
        "path": path,
        "id": manifest.id,
        "size": archive.size(),
        "partial": manifest.partial,
        "manifest": manifest,
    });
    let text = describe::manifest(manifest, &path, archive.size(), screen.verbose, screen.style);
    screen.result(document, &text)?;
    Ok(exit::DONE)
}
