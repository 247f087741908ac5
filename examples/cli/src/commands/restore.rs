//! `restore` and `resume`: an archive back into its stores.

use std::{path::PathBuf, sync::Arc};

use backup_kit::{
    Catalog, Error, ErrorKind, RestoreOptions, RestorePlan, RestoreReport, Result, Stores,
};
use futures::executor::block_on;
use serde_json::json;

use super::Context;
use crate::{
    args,
    config::Config,
    exit,
    progress::Meter,
    stores,
    text::{plain, things},
};

pub(super) fn restore(context: &Context<'_>, args: &args::Restore) -> Result<u8> {
    let screen = &context.screen;
    let config = context.config()?;
    let archive = context.open(&args.archive.archive)?;
    let (stores, meter) = watched(context, &config, "restoring")?;
    let options = RestoreOptions::new()
        .journal_dir(journal_dir(&config)?)
        .avoid(config.catalog.clone())
        .cancel(&context.cancel);
    let plan = block_on(stores.plan_restore_with(&archive, &options))?;
    if args.dry_run {
        let document = json!({"dry_run": true, "plan": plan});
        screen.result(document, &lines(&plan))?;
        return Ok(exit::DONE);
    }
    if !args.ask.force {
        agree(context, &plan)?;
    }
    meter.show();
    let report = block_on(plan.execute());
    meter.end();
    report_back(context, &report?)
}

pub(super) fn resume(context: &Context<'_>) -> Result<u8> {
    let config = context.config()?;
    let (stores, meter) = watched(context, &config, "resuming")?;
    meter.show();
    let report = block_on(stores.resume(journal_dir(&config)?));
    meter.end();
    match report? {
        Some(report) => report_back(context, &report),
        None => {
            let document = json!({"restored": null, "resumed": false});
            context.screen.result(document, "nothing to resume\n")?;
            Ok(exit::DONE)
        }
    }
}

fn watched(
    context: &Context<'_>,
    config: &Config,
    verb: &'static str,
) -> Result<(Stores, Arc<Meter>)> {
    let meter = Arc::new(Meter::hidden(&context.screen, verb));
    let watch = Arc::clone(&meter);
    let stores = stores::make(config, &config.stores)?;
    Ok((stores.observe(move |event: &backup_kit::Event| watch.event(event)), meter))
}

/// All restores of a configuration meet in one folder, whose lock keeps them apart.
fn journal_dir(config: &Config) -> Result<PathBuf> {
    match &config.catalog {
        Some(dir) => Catalog::open(dir).map(|catalog| catalog.dir().to_owned()),
        None => Ok(config.folder.clone()),
    }
}

fn agree(context: &Context<'_>, plan: &RestorePlan) -> Result<()> {
    let screen = &context.screen;
    let refused = |what: &str, advice: &str| {
        Err(Error::new(ErrorKind::InvalidInput, what.to_owned()).advise(advice))
    };
    if !screen.asks {
        return refused(
            "nobody can be asked whether to replace what the stores hold",
            "say so with --yes, or look first with --dry-run",
        );
    }
    screen.note(&lines(plan));
    let stores = things(plan.stores().len() as u64, "store");
    if screen.confirm(&format!("This replaces the content of {stores}."))? {
        return Ok(());
    }
    refused("not restored: the answer was not yes", "nothing was changed")
}

fn lines(plan: &RestorePlan) -> String {
    let text = plan.to_string();
    text.lines().map(|line| plain(line) + "\n").collect()
}

fn report_back(context: &Context<'_>, report: &RestoreReport) -> Result<u8> {
    let screen = &context.screen;
    report.warnings.iter().for_each(|warning| screen.warn(warning));
    let mut text = if report.restored() {
        format!("{} backup {}\n", screen.style.good("restored"), report.archive)
    } else {
        format!("{}: the stores hold what they held before\n", screen.style.warn("taken back"))
    };
    for store in &report.stores {
        if let Some(content) = &store.content {
            let records = content.collections.values().map(|tally| tally.records).sum();
            let mut found = vec![things(records, "record")];
            if !content.blobs.is_empty() {
                found.push(things(content.blobs.len() as u64, "native file"));
            }
            let name = plain(&store.name);
            text.push_str(&format!("  {name}: {} read back and equal\n", found.join(", ")));
        }
    }
    let code = if report.restored() { exit::DONE } else { exit::FAILED };
    screen.result(json!({"restored": report.restored(), "report": report}), &text)?;
    Ok(code)
}
