//! What a server has beside its keys, where it is asked for: functions, users, settings.
//!
//! Each is a collection, whose name no prefix of keys can have, because it has a colon:
//!
//! | collection | key | record |
//! |---|---|---|
//! | `server:functions` | a library | `{"code":V}`, the text with its first line |
//! | `server:users` | a user | `{"rules":V}`, as `ACL LIST` has them, with the digests of passwords |
//! | `server:settings` | a parameter | `{"value":V}` |
//!
//! `V` and keys are text where they are UTF-8, and else tagged `Base64`.

mod apply;
mod read;
mod stage;

pub(crate) use read::parts;
pub(crate) use stage::Told;

use std::collections::BTreeMap;

use backup_core::{
    Error, ErrorKind, Result,
    record::{BatchBuilder, RecordBatch},
};
use bytes::Bytes;

use crate::{model, options::RedisOptions};

/// A kind of what servers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extra {
    Functions,
    Users,
    Settings,
}

/// Names and what they stand for.
pub(crate) type Named = BTreeMap<Bytes, Bytes>;

impl Extra {
    pub(crate) const ALL: [Self; 3] = [Self::Functions, Self::Users, Self::Settings];

    pub(crate) fn collection(self) -> &'static str {
        match self {
            Self::Functions => "server:functions",
            Self::Users => "server:users",
            Self::Settings => "server:settings",
        }
    }

    /// The kind that a collection holds; `None`: keys.
    pub(crate) fn of(collection: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extra| extra.collection() == collection)
    }

    fn member(self) -> &'static str {
        match self {
            Self::Functions => "code",
            Self::Users => "rules",
            Self::Settings => "value",
        }
    }

    /// Refuses what the store was not opened for.
    pub(crate) fn check(self, options: &RedisOptions) -> Result<()> {
        let (opened, with) = match self {
            Self::Functions => (options.functions, "functions()"),
            Self::Users => (options.users, "users()"),
            Self::Settings => (!options.settings.is_empty(), "settings(…)"),
        };
        if opened {
            return Ok(());
        }
        let what = "the archive has something that the store does not restore as it was opened";
        Err(Error::new(ErrorKind::Unsupported, what)
            .on(self.collection())
            .advise(format!("open the store with `{with}`, or leave the collection out")))
    }

    /// Records of what is there.
    pub(crate) fn batch<'n>(
        self,
        named: impl IntoIterator<Item = (&'n Bytes, &'n Bytes)>,
    ) -> Result<RecordBatch> {
        let mut batch = BatchBuilder::new(self.collection());
        for (name, text) in named {
            batch.push(&model::bytes_key(name), |json| {
                json.begin_object()?;
                json.name(self.member())?;
                model::write_bytes(json, text);
                json.end_object();
                Ok(())
            })?;
        }
        batch.finish()
    }

    /// What the records of a batch say.
    pub(crate) fn named(self, batch: &RecordBatch) -> Result<Named> {
        let mut named = Named::new();
        for record in batch.iter() {
            let fault =
                |error: Error| error.on(format!("{}, key {}", self.collection(), record.key()));
            let name = serde_json::from_str(record.key_json()).unwrap_or_default();
            let name = model::bytes_of(&name).map_err(fault)?;
            let mut members =
                model::object(serde_json::from_str(record.value_json()).unwrap_or_default())?;
            let text = members.remove(self.member()).unwrap_or_default();
            model::nothing_else(&members).map_err(fault)?;
            named.insert(name, model::bytes_of(&text).map_err(fault)?);
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_of_any_bytes_come_back() {
        for extra in Extra::ALL {
            assert_eq!(Extra::of(extra.collection()), Some(extra));
            let pairs = [("7", "on ~* +@all"), ("a", ""), ("", "#!lua name=a\n")];
            let mut named: Named =
                pairs.map(|(a, b)| (Bytes::from(a), Bytes::from(b))).into_iter().collect();
            named.insert(Bytes::from_static(b"\xff"), Bytes::from_static(b"\0\xfe"));
            let batch = extra.batch(&named).unwrap();
            assert_eq!(extra.named(&batch).unwrap(), named);
        }
        assert_eq!(Extra::of("keys"), None);
    }
}
