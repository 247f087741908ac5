//! Planning a restore, and finding one again.

use std::sync::Arc;

use backup_core::{
    Cancel, Error, ErrorKind, Prepared, Reattached, Result, Sink, SinkSession, StagePlan,
    StageToken, Switch, WriteMode, async_trait,
};

use crate::{
    Expiry, RedisStore,
    client::{Client, Info, Node},
    extra::Extra,
    naming::Naming,
    options::RedisOptions,
    reply,
    stage::{Session, now_ms, restored},
    token::{State, Token, Way},
};

#[async_trait]
impl Sink for RedisStore {
    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        plan.check(self)?;
        if let Some(name) = plan.content.blobs.keys().next() {
            let what = "a native snapshot cannot be restored through a server";
            return Err(Error::new(ErrorKind::Unsupported, what).on(name));
        }
        let (client, options, plan) =
            (self.client.clone(), Arc::clone(&self.options), plan.clone());
        let kind = plan.kind.clone();
        let (token, switch, notes) =
            self.client.run(async move { look(&client, &options, &plan).await }).await?;
        let mode = if token.merge { WriteMode::Merge } else { WriteMode::Replace };
        let data = serde_json::to_value(&token)
            .map_err(|e| Error::adapter("a token is not JSON").because(e))?;
        Ok(Prepared { token: StageToken { kind, mode, data }, switch, notes })
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        let session = self.session(token, cancel.clone())?;
        session.begin().await?;
        Ok(Box::new(session))
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let session = self.session(token, Cancel::new())?;
        Ok(match session.state_apart().await? {
            None => Reattached::Absent,
            // A switch that broke off is done again by a commit, and taken back by an abort.
            Some(State::Staged | State::Sealed | State::Clearing | State::Switching) => {
                Reattached::Staged(Box::new(session))
            }
            Some(State::Committed | State::Undoing) => Reattached::Committed(Box::new(session)),
            Some(State::Undone) => Reattached::Undone(Box::new(session)),
        })
    }
}

impl RedisStore {
    fn session(&self, token: &StageToken, cancel: Cancel) -> Result<Session> {
        let token: Token = token.read(self)?;
        token.check(self.options.naming().databases())?;
        Ok(Session::new(&self.client, &self.options, token, cancel))
    }
}

async fn look(
    client: &Client,
    options: &Arc<RedisOptions>,
    plan: &StagePlan,
) -> Result<(Token, Switch, Vec<String>)> {
    crate::store::version(client).await?;
    let merge = plan.mode == WriteMode::Merge;
    if !merge && !options.owns_types() {
        let what = "a store that is limited to some types of keys cannot be replaced";
        return Err(Error::new(ErrorKind::Unsupported, what)
            .advise("open the store without `types`, or merge into it"));
    }
    let naming = options.naming();
    let primaries = client.primaries().await?;
    let cluster = primaries.iter().any(|primary| primary.slots.is_some());
    if cluster && naming.databases() != [0] {
        let what = "a cluster has one logical database, with the number 0";
        return Err(Error::new(ErrorKind::InvalidInput, what));
    }
    let mut notes = Vec::new();
    let share = plan.bytes / primaries.len().max(1) as u64;
    for primary in &primaries {
        let node = client.at(primary.address.as_ref(), 0).await?;
        if node.info("replication").await?.is("role", "slave") {
            let what = "this server is a replica, which takes no writes";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .on(node.name())
                .advise("use the address of the primary"));
        }
        room(&node, share, &mut notes).await?;
    }
    let way = if cluster || merge || !options.owns_all() {
        Way::Rename(naming.databases().to_vec())
    } else {
        match spares(client, options, &naming).await? {
            Some(pairs) => Way::Swap(pairs),
            None => {
                notes.push("no logical database is empty: keys are renamed one by one".to_owned());
                Way::Rename(naming.databases().to_vec())
            }
        }
    };
    let shift = match options.expiry {
        Expiry::Deadline => 0,
        Expiry::Remaining { taken_at_ms } => now_ms().saturating_sub(taken_at_ms).max(0),
    };
    let collections = plan.content.collections.keys().cloned().collect();
    let token = Token { id: plan.restore_id.clone(), way, merge, collections, shift };
    token.check(naming.databases())?;
    let place = restored(&token, options);
    for name in &token.collections {
        match Extra::of(name) {
            None => drop(place.place(name)?),
            Some(extra) => {
                extra.check(options)?;
                if extra != Extra::Functions {
                    notes.push(format!(
                        "{name} holds until the server restarts, unless it is saved then"
                    ));
                }
            }
        }
    }
    let switch = match &token.way {
        Way::Swap(pairs) => {
            for (live, spare) in pairs {
                notes.push(format!("database {live} is swapped with {spare}, which is empty"));
            }
            Switch::AtomicPointer
        }
        Way::Rename(_) => {
            notes.push("keys are renamed one by one: readers may see old and new ones".to_owned());
            Switch::Stepwise
        }
    };
    Ok((token, switch, notes))
}

/// Refuses to stage where the server would run out of memory, or throw live keys away for it.
async fn room(node: &Node, bytes: u64, notes: &mut Vec<String>) -> Result<()> {
    let info: Info = node.info("memory").await?;
    let (Some(used), Some(most)) = (info.number("used_memory"), info.number("maxmemory")) else {
        notes.push("the server does not tell how much memory it has".to_owned());
        return Ok(());
    };
    let policy = info.get("maxmemory_policy").unwrap_or("noeviction");
    // The archive's text and the server's structures are of about one size; what is live stays
    // until the end.
    if most == 0 || used.saturating_add(bytes) <= most {
        return Ok(());
    }
    let what = format!(
        "staging needs about {bytes} bytes, and the server uses {used} of {most} with the policy \
         {policy}"
    );
    let advice = if policy == "noeviction" {
        "raise `maxmemory` for the time of the restore"
    } else {
        "raise `maxmemory` for the time of the restore: this server would throw live keys away"
    };
    Err(Error::new(ErrorKind::NoSpace, what).on(node.name()).advise(advice))
}

/// An empty database for each that is restored.
async fn spares(
    client: &Client,
    options: &RedisOptions,
    naming: &Naming,
) -> Result<Option<Vec<(u32, u32)>>> {
    let node = client.first(naming.databases()[0]).await?;
    let keyspace = node.info("keyspace").await?;
    let filled: Vec<u32> =
        keyspace.lines().filter_map(|(name, _)| name.strip_prefix("db")?.parse().ok()).collect();
    let free = |number: &u32| !filled.contains(number) && !naming.databases().contains(number);
    if let Some(spare) = options.spare {
        if !free(&spare) {
            let what = "the spare database is not empty, or belongs to the store";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(format!("database {spare}")));
        }
        if naming.databases().len() == 1 {
            return Ok(Some(vec![(naming.databases()[0], spare)]));
        }
    }
    // Servers that do not tell have sixteen, or fewer.
    let told = node.one(redis::cmd("CONFIG").arg("GET").arg("databases")).await;
    let told = told.ok().and_then(|value| reply::pairs(value).ok());
    let told = told.and_then(|mut pairs| reply::take(&mut pairs, "databases"));
    let count = told.and_then(|value| reply::integer(&value).ok());
    let count = count.and_then(|count| u32::try_from(count).ok()).unwrap_or(16);
    let mut candidates = (0..count).rev().filter(free);
    let mut pairs = Vec::new();
    for live in naming.databases() {
        match candidates.next() {
            // One that the server does not have, or does not give, ends the search.
            Some(spare) if client.first(spare).await.is_ok() => pairs.push((*live, spare)),
            _ => return Ok(None),
        }
    }
    Ok(Some(pairs))
}
