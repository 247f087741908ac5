//! `fields` of a store: where the records of its collections have what a selection asks for.

use std::collections::BTreeMap;

use backup_kit::{manifest::FieldMapping, select::Field};

use super::tree::{Fault, Section, fault};

/// Collection by collection, the names of fields with their JSON pointers.
pub(super) fn parse(store: &Section<'_, '_>) -> Result<BTreeMap<String, FieldMapping>, Fault> {
    let Some(value) = store.get("fields") else { return Ok(BTreeMap::new()) };
    let collections = Section::table("`fields`", value)?.table;
    collections
        .iter()
        .map(|(collection, fields)| Ok((collection.get_ref().to_string(), mapping(fields)?)))
        .collect()
}

fn mapping(fields: &toml::Spanned<toml::de::DeValue<'_>>) -> Result<FieldMapping, Fault> {
    let section = Section::table("the fields of a collection", fields)?;
    let mut mapping = FieldMapping::default();
    for name in section.table.keys() {
        let pointer = section.text(name.get_ref())?;
        let value = section.required(name.get_ref())?;
        if !pointer.starts_with('/') || Field::new(&pointer).is_err() {
            let what = format!("`{}` has to be a JSON pointer", name.get_ref());
            return Err(fault(value, what).hint("write it like /meta/project"));
        }
        if name.get_ref().starts_with('/') || Field::new(name.get_ref()).is_err() {
            let what = format!("`{}` cannot be the name of a field", name.get_ref());
            return Err(fault(name, what).hint("use letters, digits, _ and -"));
        }
        mapping.set(name.get_ref().as_ref(), pointer);
    }
    Ok(mapping)
}
