//! An archive's manifest, for people.

use std::fmt::Write as _;

use backup_kit::{
    MigrationInfo, MigrationPath, VersionVerdict,
    manifest::{
        CollectionManifest, Consistency, Manifest, StoreConsistency, StoreManifest, StoreNotice,
    },
};

use crate::text::{Side, Style, Table, count, duration, plain, size, things, time};

/// Where an archive is, and how large.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a str,
    pub(crate) bytes: u64,
}

/// Everything that `info` shows.
pub(crate) fn manifest(
    manifest: &Manifest,
    place: Place<'_>,
    versions: Option<&VersionVerdict>,
    verbose: bool,
    style: Style,
) -> String {
    let mut out = head(manifest, place, style);
    section(&mut out, "Versions", versions.map(verdict), style);
    section(&mut out, "Stores", stores(manifest, verbose), style);
    section(&mut out, "Collections", collections(manifest, verbose), style);
    section(&mut out, "Native snapshots", blobs(manifest, verbose), style);
    section(&mut out, "References", references(manifest), style);
    if verbose {
        section(&mut out, "Figures", figures(manifest), style);
        section(&mut out, "Facts", facts(manifest), style);
    }
    let title = format!("Notices: {}", count(manifest.notice_count));
    section(&mut out, &title, notices(manifest, verbose), style);
    out
}

fn section(out: &mut String, title: &str, table: Option<Table>, style: Style) {
    if let Some(table) = table {
        let _ = write!(out, "\n{}\n{}", style.bold(title), table.render("  ", style));
    }
}

/// Whether a restore would take it, why, and what to do next.
fn verdict(verdict: &VersionVerdict) -> Table {
    let mut table = Table::bare(&[Side::Left, Side::Left]);
    let mut row = |name: &str, text: String| table.row([name.to_owned(), text]);
    row("verdict", verdict.to_string());
    let steps = verdict.migration.iter().flat_map(MigrationPath::steps);
    steps.for_each(|step| row("migration", line(&step)));
    verdict.warnings.iter().for_each(|warning| row("warning", warning.clone()));
    if !verdict.allowed {
        row("next", verdict.next_step.clone());
    }
    table
}

fn line(step: &MigrationInfo) -> String {
    format!("{} to {}: {}", step.from, step.to, step.description)
}

/// Migrations, each with what it does.
pub(crate) fn migrations(migrations: &[MigrationInfo], style: Style) -> String {
    if migrations.is_empty() {
        return "no migrations\n".into();
    }
    let mut out = String::new();
    for migration in migrations {
        let back = if migration.reversible { "" } else { ", no way back" };
        let _ = writeln!(out, "{}{back}", style.bold(&plain(&line(migration))));
        for change in &migration.changes {
            let _ = writeln!(out, "  {}", plain(change));
        }
        for warning in &migration.warnings {
            let _ = writeln!(out, "  {}: {}", style.warn("warning"), plain(warning));
        }
        let _ = writeln!(out, "  {}", style.dim(&format!("sha256 {}", migration.checksum)));
    }
    out
}

fn head(manifest: &Manifest, place: Place<'_>, style: Style) -> String {
    let Place { path, bytes } = place;
    let app = &manifest.application;
    let mut out = style.bold(&plain(&format!("{} {}", app.name, app.version)));
    if manifest.partial {
        let _ = write!(out, "  {}", style.warn("partial"));
    }
    out.push('\n');
    let mut lines = Table::bare(&[Side::Left, Side::Left]);
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            lines.row([name.into(), value]);
        }
    };
    let took = manifest.finished.as_micros() - manifest.created.as_micros();
    let producer = &manifest.producer;
    line("archive", path.to_owned());
    line("id", manifest.id.to_string());
    line(
        "made",
        format!(
            "{} UTC in {}, by {} {}",
            time(manifest.created),
            duration(took),
            producer.name,
            producer.version
        ),
    );
    line("selected", selection(manifest));
    line("description", manifest.description.clone().unwrap_or_default());
    line("data schema", manifest.data_schema_version.clone().unwrap_or_default());
    let codec = match serde_json::to_value(manifest.codec) {
        Ok(serde_json::Value::String(codec)) => codec,
        _ => String::new(),
    };
    let parts = things(manifest.index.parts, "part");
    line(
        "size",
        format!("{} ({codec}), from {} in {parts}", size(bytes), size(manifest.index.bytes)),
    );
    line("moment", moment(manifest.consistency).into());
    line(
        "machine",
        manifest.system.as_ref().map_or(String::new(), |s| format!("{} {}", s.os, s.arch)),
    );
    line("encryption", manifest.encryption.clone().unwrap_or_default());
    line("configuration", manifest.config.join(", "));
    out + &lines.render("  ", Style::default())
}

/// What of the stores was asked for; empty for everything.
pub(crate) fn selection(manifest: &Manifest) -> String {
    manifest.selection.join("; ")
}

fn moment(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Consistent => "consistent: all stores show the same one",
        Consistency::PerStore => "each store shows one, but not the same one",
        _ => "fuzzy: a store was read while it could change",
    }
}

fn read_how(store: &StoreManifest) -> &'static str {
    match store.consistency {
        _ if store.missing => "missing",
        StoreConsistency::Pinned => "at one moment",
        StoreConsistency::Held => "while paused",
        _ if store.changed == Some(false) => "unchanged meanwhile",
        _ if store.changed == Some(true) => "while it changed",
        _ => "live",
    }
}

fn stores(manifest: &Manifest, verbose: bool) -> Option<Table> {
    let mut table = Table::new(&[
        ("name", Side::Left),
        ("kind", Side::Left),
        ("engine", Side::Left),
        ("read", Side::Left),
        ("parts", Side::Right),
        ("size", Side::Right),
        ("from", Side::Left),
        ("took", Side::Right),
        ("mark", Side::Left),
    ]);
    for (name, store) in &manifest.stores {
        let detail = |text: String| if verbose && !store.missing { text } else { String::new() };
        let shown = |text: String| if store.missing { String::new() } else { text };
        let version = store.engine_version.as_deref().unwrap_or_default();
        let took = store.window.end.as_micros() - store.window.start.as_micros();
        table.row([
            name.clone(),
            store.kind.clone(),
            format!("{} {version}", store.engine).trim_end().to_owned(),
            read_how(store).to_owned(),
            shown(count(store.parts)),
            shown(size(store.bytes)),
            detail(time(store.window.start)),
            detail(duration(took)),
            detail(store.mark.clone().unwrap_or_default()),
        ]);
    }
    (!manifest.stores.is_empty()).then_some(table)
}

fn collections(manifest: &Manifest, verbose: bool) -> Option<Table> {
    let mut table = Table::new(&[
        ("store", Side::Left),
        ("name", Side::Left),
        ("records", Side::Right),
        ("size", Side::Right),
        ("vectors", Side::Left),
        ("model", Side::Left),
        ("digest", Side::Left),
    ]);
    let mut any = false;
    for (store, of) in &manifest.stores {
        for (name, collection) in &of.collections {
            any = true;
            let digest = collection.tally.digest.to_string();
            table.row([
                store.clone(),
                name.clone(),
                records(collection),
                size(collection.bytes),
                vectors(collection),
                collection.info.model.clone().unwrap_or_default(),
                if verbose { digest } else { String::new() },
            ]);
        }
    }
    any.then_some(table)
}

/// How many, and of how many they were selected.
fn records(collection: &CollectionManifest) -> String {
    let taken = count(collection.tally.records);
    match collection.selected_from {
        Some(all) => format!("{taken} of {}", count(all)),
        None => taken,
    }
}

/// `text 384 f32 cosine, 970 of 974`: one phrase a vector.
fn vectors(collection: &CollectionManifest) -> String {
    let phrase = |(name, info): (&String, &backup_kit::manifest::VectorInfo)| {
        let mut words = vec![if name.is_empty() { "unnamed".into() } else { name.clone() }];
        words.extend(info.dim.map(|dim| dim.to_string()));
        words.push(format!("{:?}", info.element).to_lowercase());
        words.extend(info.distance.clone());
        match collection.tally.vectors.get(name) {
            Some(tally) if tally.count != collection.tally.records => {
                words.push(format!("in {}", count(tally.count)));
            }
            _ => {}
        }
        words.join(" ")
    };
    collection.info.vector_info.iter().map(phrase).collect::<Vec<_>>().join(", ")
}

fn blobs(manifest: &Manifest, verbose: bool) -> Option<Table> {
    let mut table = Table::new(&[
        ("store", Side::Left),
        ("file", Side::Left),
        ("size", Side::Right),
        ("digest", Side::Left),
    ]);
    let mut any = false;
    for (store, of) in &manifest.stores {
        for (name, blob) in &of.blobs {
            any = true;
            let digest = if verbose { blob.digest.to_string() } else { String::new() };
            table.row([store.clone(), name.clone(), size(blob.len), digest]);
        }
    }
    any.then_some(table)
}

fn references(manifest: &Manifest) -> Option<Table> {
    let mut table = Table::bare(&[Side::Left]);
    manifest.references.iter().for_each(|reference| table.row([reference.to_string()]));
    (!manifest.references.is_empty()).then_some(table)
}

fn figures(manifest: &Manifest) -> Option<Table> {
    let mut table = Table::bare(&[Side::Left, Side::Left, Side::Right]);
    let mut any = false;
    let mut add = |of: String, figures: &std::collections::BTreeMap<String, u64>| {
        for (name, figure) in figures {
            any = true;
            table.row([of.clone(), name.clone(), count(*figure)]);
        }
    };
    add("all".into(), &manifest.statistics);
    for (store, of) in &manifest.stores {
        for (name, collection) in &of.collections {
            add(format!("{store}/{name}"), &collection.statistics);
        }
    }
    any.then_some(table)
}

fn facts(manifest: &Manifest) -> Option<Table> {
    let mut table = Table::bare(&[Side::Left, Side::Left, Side::Left]);
    let mut any = false;
    let mut add = |of: String, facts: &backup_kit::Metadata| {
        for (name, fact) in facts {
            any = true;
            table.row([of.clone(), name.clone(), fact.to_string()]);
        }
    };
    add("all".into(), &manifest.metadata);
    for (store, of) in &manifest.stores {
        add(store.clone(), &of.metadata);
        for (name, collection) in &of.collections {
            add(format!("{store}/{name}"), &collection.info.metadata);
        }
    }
    any.then_some(table)
}

/// How many notices are shown without `--verbose`.
const SHOWN: usize = 10;

fn notices(manifest: &Manifest, verbose: bool) -> Option<Table> {
    let mut table = Table::bare(&[Side::Left, Side::Left, Side::Left]);
    let shown = if verbose { usize::MAX } else { SHOWN };
    for StoreNotice { store, notice, .. } in manifest.notices.iter().take(shown) {
        let mut place = vec![store.as_str(), &notice.collection, &notice.subject];
        place.retain(|part| !part.is_empty());
        place.dedup();
        let kind = match serde_json::to_value(notice.kind) {
            Ok(serde_json::Value::String(kind)) => kind,
            _ => String::new(),
        };
        table.row([kind, place.join(": "), notice.detail.clone()]);
    }
    let listed = manifest.notices.len().min(shown) as u64;
    if manifest.notice_count > listed {
        let more = format!("and {} more", count(manifest.notice_count - listed));
        table.row([more, String::new(), String::new()]);
    }
    (!manifest.notices.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Manifest {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let text = std::fs::read(docs.join("manifest-v1.example.json")).unwrap();
        Manifest::from_json(&text).unwrap()
    }

    fn lines(verbose: bool, style: Style) -> String {
        let place = Place { path: "backups/a.tar.gz", bytes: 1_900_800 };
        manifest(&example(), place, None, verbose, style)
    }

    #[test]
    fn an_archive_fits_on_a_screen() {
        let expected = "\
docs-memory 1.4.0  partial
  archive        backups/a.tar.gz
  id             019b7d1c-8c22-7bbb-8000-0123456789ab
  made           2026-01-02 03:04:05 UTC in 2 min 00 s, by backup-kit 0.1.0
  selected       vectors/passages: project=docs
  description    before the upgrade
  data schema    7
  size           1.81 MiB (gzip), from 2.20 MiB in 4 parts
  moment         each store shows one, but not the same one
  machine        linux x86_64
  encryption     age
  configuration  host

Stores
  name     kind    engine         read           parts      size
  state    sqlite  SQLite 3.51.3  at one moment      1  8.00 KiB
  uploads  files   files          missing
  vectors  memory  memory         live               3  2.19 MiB

Collections
  store    name           records      size  vectors                     model
  vectors  passages  974 of 1 200  2.19 MiB  text 384 f32 cosine in 970  all-MiniLM-L6-v2

Native snapshots
  store  file         size
  state  main.db  8.00 KiB

References
  state/notes:/passage -> vectors/passages: 7 of 974 values dangle: 41, \"draft\", …
  vectors/passages:/file -> uploads/root: not checked: uploads/root: the store could not be reached

Notices: 1
  store-missing  uploads  the folder does not exist
";
        assert_eq!(lines(false, Style::default()), expected);
    }

    #[test]
    fn verbose_adds_digests_windows_and_figures() {
        let text = lines(true, Style::default());
        for expected in [
            &"5a".repeat(32),
            "data_version 7",
            "2026-01-02 03:04:05",
            "vectors/passages  documents  76",
            "state             journal_mode  \"wal\"",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn colour_changes_nothing_else() {
        let coloured = lines(true, Style::new(true));
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once("\x1b[") {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_ne!(plain, coloured);
        assert_eq!(plain, lines(true, Style::default()));
    }
}
