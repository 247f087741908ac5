//! Functions, users and settings in a restore.
//!
//! They are staged in a hash beside the keys. Right before keys are switched each server keeps
//! what it has in another hash, and takes the new; it gets the old again before keys are switched
//! back. Both hashes go along where databases are swapped.

use std::{collections::BTreeMap, sync::PoisonError};

use backup_core::{
    Content, Error, ErrorKind, Result,
    record::{Key, RecordBatch},
};
use bytes::Bytes;

use super::{Extra, Named, apply::whoami};
use crate::{
    client::Node,
    model,
    place::helper,
    reply,
    slots::{self, Ranges},
    stage::Session,
    token::Way,
};

/// What was told of the live server, by kind and name.
pub(crate) type Told = BTreeMap<(Extra, Bytes), Option<Bytes>>;

/// A field of each hash, which is there also where nothing is kept.
const MADE: &[u8] = b"!";
/// What stands before a name in a field.
const NAME: &[u8] = b"=";

/// A server, and where it keeps what it had.
struct Server {
    live: Node,
    kept: Vec<Node>,
    name: String,
}

impl Session {
    fn extras(&self) -> impl Iterator<Item = Extra> + '_ {
        self.token.collections.iter().filter_map(|name| Extra::of(name))
    }

    /// The hash of a kind, in the slot of the marker or of a server.
    fn hash(&self, extra: Extra, kept: bool, slots: Option<&Ranges>) -> String {
        let [staged, old] = match extra {
            Extra::Functions => ['f', 'F'],
            Extra::Users => ['u', 'U'],
            Extra::Settings => ['c', 'C'],
        };
        let slot = match slots {
            Some(slots) => slots.0[0].0,
            None => slots::slot(self.token.marker().as_bytes()),
        };
        helper(&self.token.id, if kept { old } else { staged }, self.by_slot().then_some(slot))
    }

    /// Where hashes may stand that go along with a database: staged, then live.
    async fn both(&self) -> Result<Vec<Node>> {
        Ok(match &self.token.way {
            Way::Swap(pairs) => {
                let (live, spare) = pairs[0];
                vec![self.client.first(spare).await?, self.client.first(live).await?]
            }
            Way::Rename(_) => vec![self.marker_node().await?],
        })
    }

    async fn servers(&self, extra: Extra) -> Result<Vec<Server>> {
        let Way::Rename(databases) = &self.token.way else {
            let (kept, name) = (self.both().await?, self.hash(extra, true, None));
            return Ok(vec![Server { live: kept[0].clone(), kept, name }]);
        };
        let mut servers = Vec::new();
        for primary in self.client.primaries().await? {
            let live = self.client.at(primary.address.as_ref(), databases[0]).await?;
            let name = self.hash(extra, true, primary.slots.as_ref());
            servers.push(Server { kept: vec![live.clone()], live, name });
        }
        Ok(servers)
    }

    /// Puts records into staging.
    pub(crate) async fn stage_extra(&self, extra: Extra, batch: &RecordBatch) -> Result<()> {
        extra.check(&self.options)?;
        let named = extra.named(batch)?;
        let node = self.marker_node().await?;
        for (name, text) in &named {
            self.may_be_set(extra, &node, name, text).await?;
        }
        keep(&node, &self.hash(extra, false, None), &named).await
    }

    /// Refuses what a server could not be taken back from, and what is not asked for.
    async fn may_be_set(&self, extra: Extra, node: &Node, name: &[u8], text: &Bytes) -> Result<()> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        match extra {
            Extra::Users if whoami(node).await? == name => {
                let live = extra.read(node, &self.options).await?;
                if live.get(name) == Some(text) {
                    return Ok(());
                }
                let what = "the archive has other rules for the user as whom the restore works";
                Err(Error::new(ErrorKind::Conflict, what).on(shown()).advise(
                    "restore as a user that the archive does not have, or leave `server:users` out",
                ))
            }
            Extra::Settings if !self.options.settings.iter().any(|s| s.as_bytes() == name) => {
                let what = "the archive has a setting that the store does not restore";
                Err(Error::new(ErrorKind::Unsupported, what)
                    .on(shown())
                    .advise("name it in `settings(…)`, or leave the record out"))
            }
            _ => Ok(()),
        }
    }

    async fn staged_extra(&self, extra: Extra) -> Result<Named> {
        let staged = first(&self.both().await?, &self.hash(extra, false, None)).await?;
        // None came.
        Ok(staged.unwrap_or_default())
    }

    /// What servers are to have that have `now`.
    fn wanted(&self, extra: Extra, now: &Named, staged: &Named) -> Named {
        let mut wanted = Named::new();
        if self.token.merge || extra == Extra::Settings {
            wanted.clone_from(now);
        }
        wanted.extend(staged.clone());
        wanted
    }

    /// Gives servers what is staged; they keep what they had.
    pub(crate) async fn put_extras(&self) -> Result<()> {
        for extra in self.extras() {
            let staged = self.staged_extra(extra).await?;
            for server in self.servers(extra).await? {
                let now = extra.read(&server.live, &self.options).await?;
                if kept(&server).await?.is_none() {
                    self.nothing_told_changed(extra, &staged, &now)?;
                    keep(&server.kept[0], &server.name, &now).await?;
                }
                extra.apply(&server.live, &now, &self.wanted(extra, &now, &staged)).await?;
            }
        }
        Ok(())
    }

    /// Gives servers again what they kept; `all`: each of them kept something.
    pub(crate) async fn extras_back(&self, all: bool) -> Result<()> {
        for extra in self.extras() {
            for server in self.servers(extra).await? {
                let Some(old) = kept(&server).await? else {
                    if all {
                        let what = "what a server had before the restore is not there any more";
                        return Err(Error::new(ErrorKind::RepairNeeded, what).on(format!(
                            "{}, {}",
                            server.live.name(),
                            extra.collection()
                        )));
                    }
                    continue;
                };
                let now = extra.read(&server.live, &self.options).await?;
                extra.apply(&server.live, &now, &old).await?;
            }
        }
        Ok(())
    }

    /// Whether a server keeps something that it had before.
    pub(crate) async fn keeps_extras(&self) -> Result<bool> {
        for extra in Extra::ALL {
            for server in self.servers(extra).await? {
                if kept(&server).await?.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn nothing_told_changed(&self, extra: Extra, staged: &Named, now: &Named) -> Result<()> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for name in staged.keys() {
            if told.get(&(extra, name.clone())).is_some_and(|told| now.get(name) != told.as_ref()) {
                let what = "it was changed since the restore looked at it";
                return Err(Error::new(ErrorKind::Changed, what)
                    .on(format!("{}, {}", extra.collection(), String::from_utf8_lossy(name)))
                    .advise("pause what changes the server, then restore again"));
            }
        }
        Ok(())
    }

    /// The live records of some names; remembers the answer.
    pub(crate) async fn look_up_extra(
        &self,
        extra: Extra,
        keys: &[Key],
    ) -> Result<Vec<RecordBatch>> {
        extra.check(&self.options)?;
        let servers = self.servers(extra).await?;
        let now = extra.read(&servers[0].live, &self.options).await?;
        let mut found = Named::new();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let name = serde_json::from_str(key.as_json()).unwrap_or_default();
            let name = model::bytes_of(&name)?;
            let text = now.get(&name).cloned();
            found.extend(text.clone().map(|text| (name.clone(), text)));
            told.entry((extra, name)).or_insert(text);
        }
        if found.is_empty() { Ok(Vec::new()) } else { Ok(vec![extra.batch(&found)?]) }
    }

    /// Counts what is staged, or live, and the restore's.
    pub(crate) async fn tally_extras(&self, live: bool, content: &mut Content) -> Result<()> {
        for extra in self.extras() {
            let mut found = self.staged_extra(extra).await?;
            if live {
                let staged = std::mem::take(&mut found);
                for (number, server) in self.servers(extra).await?.iter().enumerate() {
                    let mut now = extra.read(&server.live, &self.options).await?;
                    let some = self.token.merge || extra == Extra::Settings;
                    let own = match extra {
                        Extra::Users => Some(whoami(&server.live).await?),
                        _ => None,
                    };
                    // The user as whom the restore works stays.
                    now.retain(|name, _| {
                        staged.contains_key(name) || !some && own.as_ref() != Some(name)
                    });
                    if number > 0 && now != found {
                        let what = "the servers of the cluster do not have the same";
                        return Err(Error::new(ErrorKind::Mismatch, what).on(extra.collection()));
                    }
                    found = now;
                }
            }
            let tally = content.collections.entry(extra.collection().to_owned()).or_default();
            tally.add_batch(&extra.batch(&found)?);
        }
        Ok(())
    }
}

async fn kept(server: &Server) -> Result<Option<Named>> {
    first(&server.kept, &server.name).await
}

/// What the hash holds, wherever it stands.
async fn first(nodes: &[Node], hash: &str) -> Result<Option<Named>> {
    for node in nodes {
        let pairs = reply::pairs(node.one(redis::cmd("HGETALL").arg(hash)).await?)?;
        if pairs.is_empty() {
            continue;
        }
        let mut named = Named::new();
        for (name, text) in pairs {
            let name = reply::bytes(name)?;
            if name.starts_with(NAME) {
                named.insert(name.slice(NAME.len()..), reply::bytes(text)?);
            }
        }
        return Ok(Some(named));
    }
    Ok(None)
}

async fn keep(node: &Node, hash: &str, named: &Named) -> Result<()> {
    let mut set = redis::cmd("HSET");
    set.arg(hash).arg(MADE).arg("");
    for (name, text) in named {
        set.arg([NAME, name].concat()).arg(&text[..]);
    }
    node.one(&set).await.map(drop)
}
