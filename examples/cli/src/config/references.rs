//! `[[reference]]`: values in records that name other records.

use backup_kit::{Reference, manifest::ReferenceEnd, select::Field};
use toml::{Spanned, de::DeValue};

use super::{
    Store,
    tree::{Fault, Section, fault},
};

/// Reads all of them.
pub(super) fn parse(document: &Section<'_, '_>, stores: &[Store]) -> Result<Vec<Reference>, Fault> {
    let Some(list) = document.get("reference") else { return Ok(Vec::new()) };
    let Some(entries) = list.get_ref().as_array() else {
        return Err(fault(list, "`reference` has to be a list").hint("write [[reference]]"));
    };
    let mut all: Vec<Reference> = Vec::new();
    for entry in entries.iter() {
        let one = reference(entry, stores)?;
        if all.iter().any(|earlier| earlier.to_string() == one.to_string()) {
            return Err(fault(entry, format!("the reference {one} is there twice")));
        }
        all.push(one);
    }
    Ok(all)
}

fn reference(entry: &Spanned<DeValue<'_>>, stores: &[Store]) -> Result<Reference, Fault> {
    let section = Section::table("[[reference]]", entry)?.knows(&["from", "to", "required"])?;
    let reference = Reference::new(end(&section, "from", stores)?, end(&section, "to", stores)?);
    let required = section.flag("required")?.unwrap_or(false);
    Ok(if required { reference.required() } else { reference })
}

fn end(section: &Section<'_, '_>, key: &str, stores: &[Store]) -> Result<ReferenceEnd, Fault> {
    let (text, value) = (section.text(key)?, section.required(key)?);
    let end: ReferenceEnd = text.parse().map_err(|error: backup_kit::Error| {
        fault(value, format!("`{key}` is not the end of a reference")).hint(error.advice())
    })?;
    let names: Vec<_> = stores.iter().map(|store| store.name.as_str()).collect();
    if !names.contains(&end.store.as_str()) {
        let unknown = fault(value, format!("there is no store `{}`", end.store));
        return Err(unknown.suggest(&end.store, &names));
    }
    if end.field.as_deref().is_some_and(|field| Field::new(field).is_err()) {
        return Err(fault(value, format!("`{key}` has no JSON pointer after the colon"))
            .hint("write it like store/collection:/field, with ~1 for / and ~0 for ~"));
    }
    Ok(end)
}
