//! `[versions]` and `[[migration]]`: which versions a restore accepts, and what leads from one to
//! another.

use std::time::Duration;

use backup_kit::{Change, Migration, Migrations, VersionPolicy, record::tagged};
use serde_json::Value;
use toml::{Spanned, de::DeValue};

use super::tree::{Fault, Section, fault};

const DAY: u64 = 24 * 60 * 60;

/// Reads `[versions]`.
pub(super) fn policy(document: &Section<'_, '_>) -> Result<VersionPolicy, Fault> {
    let policy = VersionPolicy::new();
    let Some(versions) = document.get("versions") else { return Ok(policy) };
    let section = Section::table("[versions]", versions)?.knows(&[
        "strict",
        "allow_patch_downgrade",
        "allow_minor_downgrade",
        "allow_development",
        "allow_unknown",
        "check_schema",
        "max_age_days",
    ])?;
    let flag = |key| section.flag(key).map(|flag| flag.unwrap_or(false));
    let mut policy = policy
        .strict(flag("strict")?)
        .allow_patch_downgrade(flag("allow_patch_downgrade")?)
        .allow_minor_downgrade(flag("allow_minor_downgrade")?)
        .allow_development(flag("allow_development")?)
        .allow_unknown(flag("allow_unknown")?)
        .check_schema(section.flag("check_schema")?.unwrap_or(true));
    if let Some(days) = section.number("max_age_days")? {
        let age = Duration::from_secs(days.saturating_mul(DAY));
        policy = policy.max_age((days > 0).then_some(age));
    }
    Ok(policy)
}

/// Reads all `[[migration]]`.
pub(super) fn migrations(document: &Section<'_, '_>) -> Result<Migrations, Fault> {
    let Some(list) = document.get("migration") else { return Ok(Migrations::default()) };
    let Some(entries) = list.get_ref().as_array() else {
        return Err(fault(list, "`migration` has to be a list").hint("write [[migration]]"));
    };
    let mut all = Vec::new();
    for entry in entries.iter() {
        let one = migration(entry)?;
        // Alone, so that what is wrong with it has its place.
        Migrations::new([one.clone()]).map_err(refused(entry))?;
        all.push(one);
    }
    Migrations::new(all).map_err(refused(list))
}

fn refused(place: &Spanned<DeValue<'_>>) -> impl Fn(backup_kit::Error) -> Fault {
    |error| fault(place, error.to_string()).hint(error.advice())
}

fn migration(entry: &Spanned<DeValue<'_>>) -> Result<Migration, Fault> {
    let section = Section::table("[[migration]]", entry)?.knows(&[
        "from",
        "to",
        "description",
        "warnings",
        "changes",
    ])?;
    let mut migration = Migration::new(section.text("from")?, section.text("to")?)
        .describe(section.text("description")?);
    for warning in section.texts("warnings")? {
        migration = migration.warn(warning);
    }
    for entry in section.list("changes")? {
        let section = Section::table("a change", entry)?;
        let (store, collection) = (section.text("store")?, section.text("collection")?);
        migration = migration.change(change(section, &store, &collection, true)?);
    }
    Ok(migration)
}

// What a change does, and the keys that go with it.
const KINDS: [(&str, &[&str]); 6] = [
    ("rename", &["to"]),
    ("default", &["value"]),
    ("remove", &[]),
    ("rename_collection", &[]),
    ("drop_collection", &[]),
    ("schema", &["from", "to"]),
];

fn change(
    section: Section<'_, '_>,
    store: &str,
    collection: &str,
    outer: bool,
) -> Result<Change, Fault> {
    let found: Vec<_> = KINDS.iter().filter(|(kind, _)| section.get(kind).is_some()).collect();
    let [(kind, more)] = found[..] else {
        let kinds = KINDS.map(|(kind, _)| kind).join(", ");
        let what = if found.is_empty() {
            "a change does nothing that is known"
        } else {
            "a change does two things"
        };
        return Err(section.fault(what).hint(format!("give it one of: {kinds}")));
    };
    let around: &[&str] = if outer { &["store", "collection", "undo"] } else { &[] };
    let section = section.knows(&[&[*kind], *more, around].concat())?;
    let made = match *kind {
        "rename" => {
            Change::rename(store, collection, &section.text("rename")?, &section.text("to")?)
        }
        "default" => {
            let value = json(section.required("value")?)?;
            Change::set_default(store, collection, &section.text("default")?, value)
        }
        "remove" => Change::remove(store, collection, &section.text("remove")?),
        "rename_collection" => {
            Change::rename_collection(store, collection, &section.text("rename_collection")?)
        }
        "drop_collection" => {
            if section.flag("drop_collection")? != Some(true) {
                return Err(section.fault("`drop_collection` is either true or not there"));
            }
            Change::drop_collection(store, collection)
        }
        _ => {
            let (from, to) = (json(section.required("from")?)?, json(section.required("to")?)?);
            Change::set_schema(store, collection, &section.text("schema")?, from, to)
        }
    };
    Ok(match section.get("undo") {
        Some(undo) => {
            let section = Section::table("`undo`", undo)?;
            made.undone_by(change(section, store, collection, false)?)
        }
        None => made,
    })
}

/// A value as it stands in a record.
fn json(value: &Spanned<DeValue<'_>>) -> Result<Value, Fault> {
    let wrong = |what: &str| Err(fault(value, format!("JSON has no such value: {what}")));
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) => tagged::escape(Value::from(number)),
            Err(_) => return wrong("the integer is too long"),
        },
        DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::from(number),
            _ => return wrong("the float is not finite"),
        },
        DeValue::Datetime(_) => return wrong("write the time as a text, in quotes"),
        DeValue::Array(items) => items.iter().map(json).collect::<Result<_, _>>()?,
        DeValue::Table(members) => members
            .iter()
            .map(|(name, member)| Ok((name.get_ref().to_string(), json(member)?)))
            .collect::<Result<serde_json::Map<_, _>, _>>()?
            .into(),
    })
}
