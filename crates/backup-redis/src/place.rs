//! Where content stands: live, or staged under names of its own.

use bytes::Bytes;

use crate::{
    naming::{self, OWN},
    slots,
};

/// Maps keys to the names under which they stand in a database, and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// `None`: under their own names.
    kind: Option<(String, char)>,
    /// The restore whose deadlines are kept aside, and whether by slot.
    aside: Option<(String, bool)>,
}

impl Place {
    /// Under their own names.
    pub(crate) fn live() -> Self {
        Self { kind: None, aside: None }
    }

    /// What a restore stages or keeps under names in the same slots: `n` new, `o` old.
    pub(crate) fn aside(restore_id: &str, kind: char) -> Self {
        Self { kind: Some((restore_id.to_owned(), kind)), aside: None }
    }

    /// With deadlines that a restore keeps aside.
    pub(crate) fn with_deadlines(mut self, restore_id: &str, by_slot: bool) -> Self {
        self.aside = Some((restore_id.to_owned(), by_slot));
        self
    }

    pub(crate) fn with_deadlines_of(mut self, other: &Self) -> Self {
        self.aside.clone_from(&other.aside);
        self
    }

    /// The name of a key.
    pub(crate) fn name(&self, key: &[u8]) -> Bytes {
        match &self.kind {
            None => Bytes::copy_from_slice(key),
            Some((id, kind)) => {
                let mut name = helper(id, *kind, Some(slots::slot(key))).into_bytes();
                name.extend_from_slice(key);
                name.into()
            }
        }
    }

    /// The key of a name; `None` where it is not of this place.
    pub(crate) fn key_of(&self, name: &Bytes) -> Option<Bytes> {
        match &self.kind {
            None => (!naming::is_own(name)).then(|| name.clone()),
            Some((id, kind)) => {
                let rest =
                    name.strip_prefix(OWN)?.strip_prefix(format!("{id}:{kind}:{{").as_bytes())?;
                let close = rest.iter().position(|byte| *byte == b'}')?;
                Some(name.slice(name.len() - rest.len() + close + 1..))
            }
        }
    }

    /// What all names begin with, for `MATCH`.
    pub(crate) fn pattern(&self) -> Option<String> {
        self.kind.as_ref().map(|(id, kind)| pattern(id, *kind))
    }

    /// The hash that holds deadlines of a key's fields, by field.
    pub(crate) fn field_deadlines(&self, key: &[u8]) -> Option<Bytes> {
        let (id, _) = self.aside.as_ref()?;
        Some(Self::aside(id, 'h').name(key))
    }

    /// The hash that holds the deadline of a key, by key.
    pub(crate) fn deadlines(&self, key: &[u8]) -> Option<String> {
        let (id, by_slot) = self.aside.as_ref()?;
        Some(helper(id, 'd', by_slot.then(|| slots::slot(key))))
    }
}

/// The name of a key that a restore keeps its own notes in.
pub(crate) fn helper(restore_id: &str, kind: char, slot: Option<u16>) -> String {
    let own = std::str::from_utf8(OWN).unwrap_or_default();
    match slot {
        Some(slot) => format!("{own}{restore_id}:{kind}:{{{}}}", slots::tag(slot)),
        None => format!("{own}{restore_id}:{kind}"),
    }
}

/// What all names of one kind begin with, for `MATCH`.
pub(crate) fn pattern(restore_id: &str, kind: char) -> String {
    // Ids of restores are letters, digits and hyphens: nothing to escape.
    format!("{}{restore_id}:{kind}:*", std::str::from_utf8(OWN).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_the_slot_of_its_key_and_leads_back_to_it() {
        let place = Place::aside("r-1", 'n');
        for key in [&b"a"[..], b"", b"{x}y", b"a}b", b"{}", b"}{", b"\xff\0"] {
            let name = place.name(key);
            assert_eq!(slots::slot(&name), slots::slot(key), "{key:?}");
            assert_eq!(place.key_of(&name).as_deref(), Some(key));
            assert_eq!(Place::live().key_of(&name), None);
            assert_eq!(Place::aside("r-1", 'o').key_of(&name), None);
        }
    }
}
