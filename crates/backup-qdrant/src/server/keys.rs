//! Whether shard keys fit: a server, a live collection.

use std::collections::BTreeMap;

use backup_core::{Error, ErrorKind, Result, manifest::CollectionInfo};

use super::{client::Client, token::Token};
use crate::{
    schema::{Document, SHARD_KEYS},
    shard_key::ShardKey,
};

/// Refuses shard keys that the server cannot hold, as far as the manifest tells of them; what to
/// know of others.
pub(super) async fn same_keys(
    client: &Client,
    token: &Token,
    info: &BTreeMap<String, CollectionInfo>,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for target in &token.targets {
        let Some(keys) = info.get(&target.name).and_then(|info| info.metadata.get(SHARD_KEYS))
        else {
            continue;
        };
        let odd = |e| {
            let what = "the shard keys of a collection cannot be read";
            Error::new(ErrorKind::Corrupt, what).on(&target.name).because(e)
        };
        let keys: Vec<ShardKey> = serde_json::from_value(keys.clone()).map_err(odd)?;
        if token.adds_to(target) {
            let live = client.settings(target.place()).await?;
            fits(&target.name, Some(keys.iter()), &live)?;
            continue;
        }
        if !client.is_cluster().await? {
            return Err(no_keys().on(&target.name));
        }
        notes.push(format!(
            "the cluster chooses where the {} shard keys of {} lie, and the collection's replication \
             factor in how many copies",
            keys.len(),
            target.name
        ));
    }
    Ok(notes)
}

/// Refuses points whose shard keys, where they have any, are not those of the collection to which
/// they are added.
pub(super) fn fits<'k>(
    name: &str,
    keys: Option<impl Iterator<Item = &'k ShardKey>>,
    live: &Document,
) -> Result<()> {
    let refused = |what: String, advice: &str| {
        Err(Error::new(ErrorKind::Incompatible, what).on(name).advise(advice))
    };
    let beside = "restore in replace mode, or beside the collection under another name";
    match (keys, live.is_keyed()) {
        (None, false) => Ok(()),
        (None, true) => {
            refused("the live collection has shard keys, the archive's not".into(), beside)
        }
        (Some(_), false) => {
            refused("the archive's collection has shard keys, the live one not".into(), beside)
        }
        (Some(keys), true) => {
            let missing: Vec<_> =
                keys.filter(|key| !live.has(key)).map(ToString::to_string).collect();
            if missing.is_empty() {
                return Ok(());
            }
            let what = format!("the live collection has no shard key {}", missing.join(", "));
            refused(what, "make these shard keys, or leave out their points")
        }
    }
}

/// The server makes no shard keys.
pub(super) fn no_keys() -> Error {
    let what = "the server does not make the shard keys of a collection";
    Error::new(ErrorKind::Incompatible, what).advise(
        "restore to a server of version 1.7 or later that runs as a cluster, if of one node only",
    )
}
