//! `create`: a backup.

use std::{fs::File, os::fd::AsFd as _, path::Path, sync::Arc};

use backup_kit::{BackupOptions, BackupReport, Error, Result, Selection};
use futures::{executor::block_on, io::AllowStdIo};
use serde_json::json;

use super::Context;
use crate::{
    args::Create,
    describe, exit,
    progress::Meter,
    select, stores,
    text::{Side, Style, Table, plain, size, things},
};

pub(super) fn run(context: &Context<'_>, args: &Create) -> Result<u8> {
    let screen = &context.screen;
    let config = context.config()?;
    let selection = Selection::parse(&args.select)?;
    let chosen = select::stores(&config.stores, &args.include, &args.exclude, &selection)?;
    let meter = Arc::new(Meter::hidden(screen, "backing up"));
    let watch = Arc::clone(&meter);
    // All stores are made, so that none reads the files of one that is left out.
    let stores = stores::make(&config, &config.stores)?
        .observe(move |event: &backup_kit::Event| watch.event(event));
    let mut options = BackupOptions::new()
        .stores(chosen.iter().map(|store| &store.name))
        .select(selection)
        .overwrite(args.ask.force)
        .system_info(true)
        .cancel(&context.cancel);
    if let Some(text) = &args.description {
        options = options.description(text);
    }
    options = options.avoid(config.catalog.clone());
    meter.show();
    let report = match args.output.as_deref() {
        None => block_on(stores.backup_with(&context.catalog(&config)?, &options)),
        Some(path) if path == Path::new("-") => {
            block_on(stores.backup_to_writer(stdout()?, &options))
        }
        Some(path) => block_on(stores.backup_to_file(path, &options)),
    };
    meter.end();
    let report = report?;
    tell(context, &report)?;
    Ok(if report.outcome.is_complete() { exit::DONE } else { exit::PARTIAL })
}

/// Standard output as a file: nothing waits in a buffer when it is closed.
fn stdout() -> Result<AllowStdIo<File>> {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.map_err(|e| Error::io("standard output cannot be written to", e))?;
    Ok(AllowStdIo::new(File::from(stdout)))
}

fn tell(context: &Context<'_>, report: &BackupReport) -> Result<()> {
    let manifest = &report.manifest;
    let path = report.path.as_ref().map(|path| path.display().to_string());
    let collections = manifest.stores.values().flat_map(|store| store.collections.values());
    let records: u64 = collections.map(|collection| collection.tally.records).sum();
    let named = |missing| {
        let of = manifest.stores.iter().filter(move |(_, store)| store.missing == missing);
        of.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let (stores, missing) = (named(false), named(true));
    let document = json!({
        "path": path,
        "id": report.id,
        "size": report.size,
        "sha256": report.sha256,
        "partial": manifest.partial,
        "selection": manifest.selection,
        "references": manifest.references,
        "consistency": manifest.consistency,
        "stores": stores,
        "missing": missing,
        "records": records,
        "notice_count": manifest.notice_count,
        "notices": manifest.notices,
    });

    let style = context.screen.style;
    let mut text = match &path {
        Some(path) => format!("{} {path}\n", style.good("created")),
        None => format!("{}\n", style.good("created")),
    };
    let mut lines = Table::bare(&[Side::Left, Side::Left]);
    lines.row(["id".into(), report.id.to_string()]);
    lines.row(["size".into(), size(report.size)]);
    lines.row(["sha256".into(), report.sha256.to_string()]);
    lines.row(["stores".into(), stores.join(", ")]);
    if !manifest.selection.is_empty() {
        lines.row(["selected".into(), describe::selection(manifest)]);
    }
    let records = things(records, "record");
    lines.row(["holds".into(), format!("{records}, {} uncompressed", size(manifest.index.bytes))]);
    for reference in &manifest.references {
        lines.row(["reference".into(), reference.to_string()]);
    }
    text.push_str(&lines.render("  ", Style::default()));
    if manifest.partial {
        let missing = if missing.is_empty() {
            String::new()
        } else {
            format!("without {}, ", plain(&missing.join(", ")))
        };
        let notices = things(manifest.notice_count, "notice");
        text.push_str(&format!("  {}: {missing}{notices}, see info\n", style.warn("partial")));
    }
    context.screen.result(document, &text)
}
