//! `info`: what is in an archive, from its trailer and root.

use backup_kit::{ErrorKind, Result, VersionVerdict, manifest::Manifest};
use serde_json::json;

use super::{Context, place};
use crate::{args::Info, describe, exit, stores};

pub(super) fn run(context: &Context<'_>, args: &Info) -> Result<u8> {
    let screen = &context.screen;
    let archive = context.open(&args.archive.archive)?;
    let path = place(&archive, &args.archive.archive);
    let manifest = archive.manifest();
    let versions = verdict(context, manifest);
    let document = json!({
        "path": path,
        "id": manifest.id,
        "versions": versions,
        "size": archive.size(),
        "partial": manifest.partial,
        "manifest": manifest,
    });
    let place = describe::Place { path: &path, bytes: archive.size() };
    let text = describe::manifest(manifest, place, versions.as_ref(), screen.verbose, screen.style);
    screen.result(document, &text)?;
    Ok(exit::DONE)
}

/// Whether a restore would take the archive's versions, where a configuration says what runs.
fn verdict(context: &Context<'_>, manifest: &Manifest) -> Option<VersionVerdict> {
    match context.config() {
        Ok(config) => Some(stores::application(&config).verdict(manifest)),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => {
            context.screen.warn(&format!("versions are not compared: {e}"));
            None
        }
    }
}
