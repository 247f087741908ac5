//! `list`: the archives of the catalog, or the parts of one.

use backup_kit::{CatalogEntry, Result, manifest::Manifest};
use serde_json::json;

use super::Context;
use crate::{
    args::{List, Sort},
    exit,
    text::{Side, Table, plain, size, time},
};

pub(super) fn run(context: &Context<'_>, args: &List) -> Result<u8> {
    match &args.archive {
        Some(archive) => parts(context, archive),
        None => archives(context, args),
    }
}

// Reads the index pages, one at a time: an archive may have millions of parts.
fn parts(context: &Context<'_>, name: &str) -> Result<u8> {
    const PAGE: usize = 64 << 10;
    let screen = &context.screen;
    let archive = context.open(name)?;
    let (mut listed, mut text) = (Vec::new(), String::new());
    for part in archive.entries() {
        let part = part?;
        if screen.json {
            listed.push(json!({"path": part.path, "size": part.size}));
            continue;
        }
        text.push_str(&format!("{:>10}  {}\n", size(part.size), plain(&part.path)));
        if text.len() >= PAGE {
            screen.result(json!({}), &std::mem::take(&mut text))?;
        }
    }
    screen.result(json!({"id": archive.manifest().id, "parts": listed}), &text)?;
    Ok(exit::DONE)
}

fn archives(context: &Context<'_>, args: &List) -> Result<u8> {
    let screen = &context.screen;
    let listing = context.catalog(&context.config()?)?.list()?;
    let mut backups = listing.backups;
    match args.sort {
        Sort::Name => backups.sort_by(|a, b| a.path.cmp(&b.path)),
        Sort::Size => backups.sort_by_key(|entry| entry.size),
        // As the catalog gives them.
        Sort::Timestamp => {}
    }
    for (path, error) in &listing.damaged {
        screen.warn(&format!("{} is no archive: {error}", path.display()));
    }
    for path in listing.leftovers.iter().filter(|_| screen.verbose) {
        screen.note(&format!("unfinished: {}", plain(&path.display().to_string())));
    }
    let archives: Vec<_> = backups
        .iter()
        .map(|CatalogEntry { path, size, manifest, .. }| {
            json!({
                "path": path.display().to_string(),
                "id": manifest.id,
                "created": manifest.created,
                "size": size,
                "partial": manifest.partial,
                "selection": manifest.selection,
                "description": manifest.description,
                "application": manifest.application,
                "stores": held(manifest),
            })
        })
        .collect();
    let damaged: Vec<_> = listing
        .damaged
        .iter()
        .map(
            |(path, error)| json!({"path": path.display().to_string(), "error": error.to_string()}),
        )
        .collect();

    let mut table = Table::new(&[
        ("created (UTC)", Side::Left),
        ("size", Side::Right),
        ("", Side::Left),
        ("stores", Side::Left),
        ("file", Side::Left),
        ("description", Side::Left),
    ]);
    for CatalogEntry { path, size: bytes, manifest, .. } in &backups {
        table.row([
            time(manifest.created),
            size(*bytes),
            match manifest.partial {
                true => "partial".into(),
                false if manifest.selection.is_empty() => String::new(),
                false => "selected".into(),
            },
            held(manifest).join(", "),
            path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            manifest.description.clone().unwrap_or_default(),
        ]);
    }
    let text =
        if backups.is_empty() { "no archives\n".into() } else { table.render("", screen.style) };
    screen.result(json!({"archives": archives, "damaged": damaged}), &text)?;
    Ok(exit::DONE)
}

/// The stores that are in an archive.
fn held(manifest: &Manifest) -> Vec<&str> {
    let stores = manifest.stores.iter().filter(|(_, store)| !store.missing);
    stores.map(|(name, _)| name.as_str()).collect()
}
