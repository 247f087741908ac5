//! Which stores of the configuration a backup takes.

use backup_kit::{Error, ErrorKind, Result, Selection};

use crate::{config::Store, glob, suggest};

/// The stores that `include` names, or else the selection, or else all without
/// `default = false`; less those that `exclude` names.
pub(crate) fn stores<'s>(
    stores: &'s [Store],
    include: &[String],
    exclude: &[String],
    selection: &Selection,
) -> Result<Vec<&'s Store>> {
    for pattern in include.iter().chain(exclude) {
        let one = glob::set(std::slice::from_ref(pattern), false)?;
        if !stores.iter().any(|store| one.is_match(&store.name)) {
            let names: Vec<_> = stores.iter().map(|store| store.name.as_str()).collect();
            return Err(Error::new(ErrorKind::InvalidInput, "no store has such a name")
                .on(pattern)
                .advise(suggest::hint(pattern, &names)));
        }
    }
    let (included, excluded) = (glob::set(include, false)?, glob::set(exclude, false)?);
    let taken: Vec<_> = stores
        .iter()
        .filter(|s| match include {
            [] if selection.named().is_empty() => s.default,
            [] => selection.takes_store(&s.name),
            _ => included.is_match(&s.name),
        })
        .filter(|store| !excluded.is_match(&store.name))
        .collect();
    if taken.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "no store is left to back up")
            .advise("name one with --include, or exclude fewer"));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Form, Kind};

    fn names(include: &[&str], exclude: &[&str]) -> Result<Vec<String>, String> {
        selected(include, exclude, Selection::new())
    }

    fn selected(
        include: &[&str],
        exclude: &[&str],
        selection: Selection,
    ) -> Result<Vec<String>, String> {
        let all = [("state", true), ("uploads", true), ("cache", false)].map(|(name, default)| {
            let kind = Kind::Sqlite { path: name.into(), form: Form::Native };
            let fields = Default::default();
            Store {
                name: name.into(),
                kind,
                optional: false,
                default,
                fields,
                conflicts: Default::default(),
            }
        });
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        stores(&all, &owned(include), &owned(exclude), &selection)
            .map(|taken| taken.iter().map(|store| store.name.clone()).collect())
            .map_err(|e| format!("{e} | {}", e.advice()))
    }

    #[test]
    fn filters_go_by_name() {
        for (include, exclude, expected) in [
            (&[][..], &[][..], &["state", "uploads"][..]),
            (&["cache"], &[], &["cache"]),
            (&["*"], &[], &["state", "uploads", "cache"]),
            (&["*"], &["s*"], &["uploads", "cache"]),
            (&[], &["uploads"], &["state"]),
            (&["uploads", "state"], &[], &["state", "uploads"]),
        ] {
            assert_eq!(names(include, exclude).unwrap(), expected, "{include:?} {exclude:?}");
        }
    }

    #[test]
    fn a_store_that_is_selected_need_not_be_included() {
        let cache = Selection::new().collection("cache", "a").store("state");
        assert_eq!(selected(&[], &[], cache.clone()).unwrap(), ["state", "cache"]);
        assert_eq!(selected(&[], &["state"], cache).unwrap(), ["cache"]);
        let rule = Selection::new().project("a");
        assert_eq!(selected(&[], &[], rule).unwrap(), ["state", "uploads"]);
    }

    #[test]
    fn what_names_nothing_is_a_mistake() {
        assert_eq!(
            names(&["upload"], &[]).unwrap_err(),
            "no store has such a name (upload) | did you mean `uploads`?"
        );
        assert_eq!(
            names(&["state"], &["state"]).unwrap_err(),
            "no store is left to back up | name one with --include, or exclude fewer"
        );
        assert!(names(&["{"], &[]).unwrap_err().starts_with("not a glob"));
    }
}
