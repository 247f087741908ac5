//! `diff`: an archive against another one, or against what the stores hold.

use backup_kit::{DiffOptions, DiffReport, Result, archive::Archive};
use futures::executor::block_on;
use serde_json::json;

use super::Context;
use crate::{args, exit, stores, text::plain};

pub(super) fn run(context: &Context<'_>, args: &args::Diff) -> Result<u8> {
    let left = context.open(&args.archive.archive)?;
    let options = DiffOptions::new().keys(args.keys).cancel(&context.cancel);
    let report = match &args.other {
        Some(other) => block_on(left.diff(&context.open(other)?, &options))?,
        None => live(context, &left, options)?,
    };
    let text: String = report.to_string().lines().map(|line| plain(line) + "\n").collect();
    context.screen.result(json!({"equal": report.is_equal(), "diff": report}), &text)?;
    Ok(if report.is_equal() { exit::DONE } else { exit::DIFFERENT })
}

// Stores that a backup takes only where they are named are compared only if the archive has them.
fn live(context: &Context<'_>, archive: &Archive, options: DiffOptions) -> Result<DiffReport> {
    let config = context.config()?;
    let stores = stores::make(&config, &config.stores)?;
    let held = &archive.manifest().stores;
    let taken = config.stores.iter().filter(|store| store.default).map(|store| &store.name);
    let options = options.stores(taken.chain(held.keys())).avoid(config.catalog.clone());
    block_on(stores.diff(archive, &options))
}
