//! `[restore]`, and `conflicts` of a store: what becomes of records that are on both sides.

use std::collections::BTreeMap;

use backup_kit::Conflict;

use super::tree::{Fault, Section, fault};

/// The rule where nothing else is said.
pub(super) fn usual(restore: &Section<'_, '_>) -> Result<Option<Conflict>, Fault> {
    restore.get("conflict").map(|_| rule(restore, "conflict")).transpose()
}

/// Collection by collection.
pub(super) fn of(store: &Section<'_, '_>) -> Result<BTreeMap<String, Conflict>, Fault> {
    let Some(value) = store.get("conflicts") else { return Ok(BTreeMap::new()) };
    let section = Section::table("`conflicts`", value)?;
    let names = section.table.keys().map(|name| name.get_ref().to_string());
    names.map(|name| rule(&section, &name).map(|rule| (name, rule))).collect()
}

fn rule(section: &Section<'_, '_>, key: &str) -> Result<Conflict, Fault> {
    let word = section.text(key)?;
    word.parse().map_err(|_| {
        let known = Conflict::ALL.map(Conflict::as_str);
        let what = format!("unknown rule `{word}`");
        match section.required(key) {
            Ok(value) => fault(value, what).suggest(&word, &known),
            Err(fault) => fault,
        }
    })
}
