//! Names of labels and types: as collections, and in statements.

use backup_core::{Error, ErrorKind, Result};

/// The collection that has all constraints and indexes, and no records.
pub(crate) const SCHEMA: &str = "(schema)";

/// Nodes without a label.
const BARE: &str = "()";

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Nodes with exactly these labels, in the order of their bytes.
    Nodes(Vec<String>),
    /// Relationships of this type.
    Relationships(String),
    /// Nothing: the schema of the whole.
    Schema,
}

impl Kind {
    /// Nodes with these labels, in any order.
    pub(crate) fn nodes(mut labels: Vec<String>) -> Self {
        labels.sort_unstable();
        labels.dedup();
        Self::Nodes(labels)
    }

    /// The collection's name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Schema => SCHEMA.to_owned(),
            Self::Nodes(labels) if labels.is_empty() => BARE.to_owned(),
            Self::Nodes(labels) => {
                labels.iter().map(|label| label_name(label)).collect::<Vec<_>>().join(":")
            }
            Self::Relationships(name) if name.contains(['[', ']', '`']) => {
                format!("[{}]", quoted(name))
            }
            Self::Relationships(name) => format!("[{name}]"),
        }
    }

    /// What a collection of this name holds.
    ///
    /// # Errors
    /// A name that [`name`](Self::name) does not give.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let kind = match name {
            SCHEMA => Some(Self::Schema),
            BARE => Some(Self::Nodes(Vec::new())),
            _ => match name.strip_prefix('[') {
                Some(rest) => rest.strip_suffix(']').and_then(relationship),
                None => labels(name).map(Self::nodes),
            },
        };
        kind.filter(|kind| kind.name() == name).ok_or_else(|| {
            let what = "this is no name of a collection of a graph";
            Error::new(ErrorKind::InvalidInput, what).on(name).advise(
                "name labels as Person or Employee:Person, and a type of relationships as [KNOWS]",
            )
        })
    }
}

fn label_name(label: &str) -> String {
    if label.contains([':', '`']) || label.starts_with(['(', '[']) {
        quoted(label)
    } else {
        label.to_owned()
    }
}

fn relationship(inner: &str) -> Option<Kind> {
    let name = match inner.strip_prefix('`') {
        Some(_) => {
            let (name, rest) = unquoted(inner)?;
            rest.is_empty().then_some(name)?
        }
        None => inner.to_owned(),
    };
    (!name.is_empty()).then_some(Kind::Relationships(name))
}

fn labels(mut text: &str) -> Option<Vec<String>> {
    let mut labels = Vec::new();
    loop {
        let (label, rest) = if text.starts_with('`') {
            unquoted(text)?
        } else {
            let end = text.find(':').unwrap_or(text.len());
            (text[..end].to_owned(), &text[end..])
        };
        if label.is_empty() {
            return None;
        }
        labels.push(label);
        match rest.strip_prefix(':') {
            Some(more) => text = more,
            None => return rest.is_empty().then_some(labels),
        }
    }
}

/// A name as it stands in a statement, where names of labels, types and properties cannot be
/// parameters.
pub(crate) fn cypher(name: &str) -> String {
    // Where a statement has `\u0060` the server reads a backtick before it looks at backticks.
    quoted(name).replace('\\', "\\u005C")
}

/// A name in backticks.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The name that a text in backticks begins with, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text.strip_prefix('`')?;
    loop {
        let end = rest.find('`')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('`') {
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(labels: &[&str]) -> Kind {
        Kind::nodes(labels.iter().map(|label| (*label).to_owned()).collect())
    }

    #[test]
    fn names_are_readable() {
        for (kind, name) in [
            (nodes(&[]), "()"),
            (nodes(&["Person"]), "Person"),
            (nodes(&["Person", "Employee"]), "Employee:Person"),
            (nodes(&["a:b", "c`d", "(x)"]), "`(x)`:`a:b`:`c``d`"),
            (nodes(&["(schema)"]), "`(schema)`"),
            (Kind::Relationships("KNOWS".to_owned()), "[KNOWS]"),
            (Kind::Relationships("a:b (c)".to_owned()), "[a:b (c)]"),
            (Kind::Relationships("a]`".to_owned()), "[`a]```]"),
            (Kind::Schema, "(schema)"),
        ] {
            assert_eq!(kind.name(), name);
            assert_eq!(Kind::parse(name).unwrap(), kind);
        }
        for bad in
            ["", ":", "a:", "[]", "[a", "(x)", "b:a", "a:a", "`a", "`a`", "a:a`", "[``]", "``"]
        {
            assert!(Kind::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_labels_come_back(labels in proptest::collection::btree_set("[a:`\\[\\]()é ]{1,4}", 0..4)) {
            let kind = Kind::nodes(labels.into_iter().collect());
            proptest::prop_assert_eq!(Kind::parse(&kind.name()).unwrap(), kind);
        }

        #[test]
        fn any_type_comes_back(name in "[a:`\\[\\]()é ]{1,4}") {
            let kind = Kind::Relationships(name);
            proptest::prop_assert_eq!(Kind::parse(&kind.name()).unwrap(), kind);
        }

        #[test]
        fn a_name_cannot_leave_its_backticks(name: String) {
            let text = format!("{}rest", quoted(&name));
            proptest::prop_assert_eq!(unquoted(&text), Some((name, "rest")));
        }
    }
}
