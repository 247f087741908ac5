//! `restore` and `resume`: an archive back into its stores.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use backup_kit::{
    Catalog, DuplicateOptions, Error, ErrorKind, MergeExample, MergedCollection, NameMap,
    RestoreOptions, RestorePlan, RestoreReport, Result, Rewrite, Selection, SkipReason, Stores,
    WriteMode, archive::Salvage, manifest::Manifest,
};
use futures::executor::block_on;
use serde_json::json;

use super::Context;
use crate::{
    args,
    config::Config,
    exit, hooks,
    progress::Meter,
    stores,
    text::{plain, things},
};

pub(super) fn restore(context: &Context<'_>, args: &args::Restore) -> Result<u8> {
    let config = context.config()?;
    let (stores, meter) = watched(context, &config, "restoring")?;
    let options = RestoreOptions::new()
        .journal_dir(journal_dir(&config)?)
        .avoid(config.catalog.clone())
        .allow_downgrade(args.allow_downgrade)
        .cancel(&context.cancel);
    let name = &args.archive.archive;
    let mut options = options;
    let plan = if args.changes.salvage {
        let salvage = Salvage::open(damaged(&config, name))?;
        options = changed(ruled(options, &config, salvage.manifest()), &args.changes)?;
        block_on(stores.plan_salvage(salvage, &options))?
    } else {
        let archive = context.open(name)?;
        options = changed(ruled(options, &config, Some(archive.manifest())), &args.changes)?;
        block_on(stores.plan_restore_with(&archive, &options))?
    };
    if args.dry_run {
        return look(context, &plan);
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

/// A damaged archive is found by its name alone.
fn damaged(config: &Config, name: &str) -> PathBuf {
    let inside = config.catalog.as_ref().map(|dir| dir.join(name));
    inside.filter(|path| !Path::new(name).is_file() && path.is_file()).unwrap_or(name.into())
}

/// The rules of the configuration, as far as the archive has such collections.
fn ruled(
    mut options: RestoreOptions,
    config: &Config,
    manifest: Option<&Manifest>,
) -> RestoreOptions {
    if let Some(rule) = config.conflict {
        options = options.conflict(rule);
    }
    for store in &config.stores {
        let known = manifest.and_then(|manifest| manifest.stores.get(&store.name));
        for (collection, rule) in &store.conflicts {
            if known.is_some_and(|known| known.collections.contains_key(collection)) {
                options = options.conflict_in(&store.name, collection, *rule);
            }
        }
    }
    options
}

/// What was asked to happen between the archive and the stores.
fn changed(mut options: RestoreOptions, args: &args::Changes) -> Result<RestoreOptions> {
    options = options
        .select(Selection::parse(&args.select)?)
        .map(NameMap::parse(&args.map)?)
        .rewrite(Rewrite::new().parse_projects(&args.rename_project)?)
        .allow_dangling(args.allow_dangling)
        .whole_safety_backup(args.whole_safety_backup);
    if args.merge || !args.conflict.is_empty() {
        options = options.merge();
    }
    for rule in &args.conflict {
        options = match rule.rsplit_once('=') {
            None => options.conflict(rule.parse()?),
            Some((place, rule)) => {
                let (store, collection) = collection(place, "store/collection=RULE")?;
                options.conflict_in(store, collection, rule.parse()?)
            }
        };
    }
    for dropped in &args.drop_vector {
        let form = "store/collection=VECTOR";
        let (place, vector) = dropped.split_once('=').ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "this names no vector")
                .on(dropped)
                .advise(format!("write {form}"))
        })?;
        let (store, collection) = collection(place, form)?;
        options = options.drop_vector(store, collection, vector);
    }
    if args.skip_duplicates {
        options = options.skip_duplicates(DuplicateOptions::default());
    }
    Ok(if args.no_safety_backup { options.no_safety_backup() } else { options })
}

fn collection<'a>(place: &'a str, form: &str) -> Result<(&'a str, &'a str)> {
    place.split_once('/').ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "this names no collection")
            .on(place)
            .advise(format!("write {form}"))
    })
}

/// The dry-run.
fn look(context: &Context<'_>, plan: &RestorePlan) -> Result<u8> {
    let preview = block_on(plan.preview())?;
    let mut text = lines(plan);
    for (store, collections) in &preview {
        for (collection, merged) in collections {
            text.push_str(&format!("  {}\n", merge_line(store, collection, merged)));
            for example in &merged.examples {
                text.push_str(&format!("    {}\n", plain(&example_line(example))));
            }
        }
    }
    let document = json!({"dry_run": true, "plan": plan, "preview": preview});
    context.screen.result(document, &text)?;
    Ok(exit::DONE)
}

fn merge_line(store: &str, collection: &str, merged: &MergedCollection) -> String {
    let counts = &merged.counts;
    let words = [
        (counts.created, "new"),
        (counts.updated, "updated"),
        (counts.merged, "merged"),
        (counts.copied, "kept beside the live one"),
        (counts.skipped, "skipped"),
        (counts.unchanged, "unchanged"),
    ];
    let words: Vec<_> =
        words.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let what = if words.is_empty() { "nothing".into() } else { words.join(", ") };
    format!("{}/{}: {what}", plain(store), plain(collection))
}

fn example_line(example: &MergeExample) -> String {
    match example {
        MergeExample::Skipped { key, reason } => {
            let reason = match reason {
                SkipReason::LiveIsNewer => "the live one is newer",
                SkipReason::LiveIsOlder => "the live one is older",
                SkipReason::SameTime => "both are of the same time",
                SkipReason::NoTime => "one of the two has no time",
                _ => "it is there already",
            };
            format!("{key} is skipped: {reason}")
        }
        MergeExample::Copied { key, new_key } => format!("{key} becomes {new_key}"),
        _ => String::new(),
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
    let stores = hooks::add(stores, &config.hooks, context.global.json);
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
    let adds = plan.stores().iter().all(|store| store.mode == WriteMode::Merge);
    let does = if adds { "adds to" } else { "replaces" };
    if screen.confirm(&format!("This {does} the content of {stores}."))? {
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
        for (collection, left_out) in store.repeated.iter().filter(|(_, n)| **n > 0) {
            let what = things(*left_out, "duplicate");
            let name = plain(&store.name);
            text.push_str(&format!("  {name}/{}: {what} left out\n", plain(collection)));
        }
        for (collection, vectors) in &store.vectors {
            for (vector, what) in vectors {
                let place = format!("{}/{collection}, vector {vector:?}", store.name);
                text.push_str(&format!("  {}: {}\n", plain(&place), plain(&what.to_string())));
            }
        }
        for (collection, merged) in &store.merged {
            text.push_str(&format!("  {}\n", merge_line(&store.name, collection, merged)));
        }
    }
    for reference in &report.references {
        text.push_str(&format!("  reference {}\n", plain(&reference.to_string())));
    }
    if let Some(path) = &report.safety_backup {
        let path = plain(&path.display().to_string());
        text.push_str(&format!("  what was live before is in {path}\n"));
    }
    if let Some(path) = &report.undo {
        let path = plain(&path.display().to_string());
        text.push_str(&format!("  the records that were changed are in {path}, as they were\n"));
    }
    let lost = report.lost.as_ref().map_or(0, |lost| lost.lost_count);
    if lost > 0 {
        let lost = format!("lost in the archive, and not live: {}", things(lost, "part"));
        text.push_str(&format!("  {}\n", screen.style.warn(&lost)));
    }
    let code = match report.restored() {
        true if lost > 0 => exit::PARTIAL,
        true => exit::DONE,
        false => exit::FAILED,
    };
    screen.result(json!({"restored": report.restored(), "report": report}), &text)?;
    Ok(code)
}
