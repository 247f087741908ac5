//! A restore up to the switch: what is written, and where.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use backup_core::{
    Cancel, Error, ErrorKind, Result,
    record::{RecordBatch, Tally},
};
use bytes::Bytes;
use futures::future::{join, try_join_all};
use redis::{Pipeline, Value};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use crate::{
    client::{Client, Node},
    extra::{Extra, Told},
    naming::{Naming, Prefixes, REST},
    options::RedisOptions,
    place::{Place, helper, pattern},
    reply,
    slots::{self, Ranges},
    token::{State, Token, Way},
    write::Write,
};

/// Sets a marker that is there, also on a server without memory.
const MARK: &str = "#!lua flags=allow-oom\n\
     return redis.call('SET', KEYS[1], ARGV[1], 'XX')";

/// The kinds of names under which a restore keeps what it stages and replaces, and its notes.
pub(crate) const KINDS: [&str; 13] =
    ["n", "o", "x", "d", "h", "s", "t", "f", "u", "c", "F", "U", "C"];

/// Keys of one round of the work that follows staging.
pub(crate) const ROUND: usize = 512;

/// A restore under way. All that another process has to know stands on the server.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) options: Arc<RedisOptions>,
    pub(crate) token: Arc<Token>,
    pub(crate) cancel: Cancel,
    /// Collections that were announced in this process.
    announced: Arc<Mutex<BTreeSet<String>>>,
    /// The order in which batches came.
    order: Arc<AsyncMutex<Write>>,
    /// Whose turn it is to send.
    turn: Arc<AsyncMutex<()>>,
    /// Connections for writing, which stay.
    connected: Arc<OnceCell<Arc<[Target]>>>,
    pub(crate) answers: Arc<Mutex<Answers>>,
    pub(crate) told: Arc<Mutex<Told>>,
}

/// What was told of live keys: by database and key the tally of its records. About 100 bytes
/// each.
pub(crate) type Answers = HashMap<(u32, Bytes), Tally>;

/// One database of one server.
pub(crate) struct Target {
    pub(crate) db: u32,
    pub(crate) slots: Option<Ranges>,
    /// Where it is staged.
    pub(crate) staging: Node,
    pub(crate) live: Node,
}

impl Session {
    pub(crate) fn new(
        client: &Client,
        options: &Arc<RedisOptions>,
        token: Token,
        cancel: Cancel,
    ) -> Self {
        let by_slot = matches!(token.way, Way::Rename(_));
        let place = if by_slot { Place::aside(&token.id, 'n') } else { Place::live() };
        let naming = restored(&token, options);
        let write = Write::new(token.id.clone(), place, by_slot, naming, token.shift);
        Self {
            client: client.clone(),
            options: Arc::clone(options),
            token: Arc::new(token),
            cancel,
            announced: Arc::default(),
            order: Arc::new(AsyncMutex::new(write)),
            turn: Arc::default(),
            connected: Arc::default(),
            answers: Arc::default(),
            told: Arc::default(),
        }
    }

    /// The same restore, for the way back: a restore that was cancelled is taken back.
    pub(crate) fn uncancelled(&self) -> Self {
        Self { cancel: Cancel::new(), ..self.clone() }
    }

    pub(crate) async fn on_runtime<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.client.run(work(self.clone())).await
    }

    pub(crate) fn by_slot(&self) -> bool {
        matches!(self.token.way, Way::Rename(_))
    }

    /// Where what is staged stands, in the database where it is staged.
    pub(crate) fn staged_place(&self) -> Place {
        let place = if self.by_slot() { Place::aside(&self.token.id, 'n') } else { Place::live() };
        place.with_deadlines(&self.token.id, self.by_slot())
    }

    pub(crate) fn live_place(&self) -> Place {
        Place::live().with_deadlines(&self.token.id, self.by_slot())
    }

    /// Connections to everything that the restore works on.
    pub(crate) async fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        match &self.token.way {
            Way::Swap(pairs) => {
                for (live, spare) in pairs {
                    targets.push(Target {
                        db: *live,
                        slots: None,
                        staging: self.client.first(*spare).await?,
                        live: self.client.first(*live).await?,
                    });
                }
            }
            Way::Rename(databases) => {
                for primary in self.client.primaries().await? {
                    for db in databases {
                        let live = self.client.at(primary.address.as_ref(), *db).await?;
                        let (db, slots) = (*db, primary.slots.clone());
                        targets.push(Target { db, slots, staging: live.clone(), live });
                    }
                }
            }
        }
        Ok(targets)
    }

    /// The connection on which the marker stands.
    pub(crate) async fn marker_node(&self) -> Result<Node> {
        match &self.token.way {
            Way::Swap(pairs) => self.client.first(pairs[0].1).await,
            Way::Rename(databases) => {
                let slot = slots::slot(self.token.marker().as_bytes());
                let primaries = self.client.primaries().await?;
                let owner = primaries.iter().find(|p| p.slots.as_ref().is_none_or(|s| s.has(slot)));
                let owner = owner.ok_or_else(|| reply::odd("the slots of a cluster"))?;
                self.client.at(owner.address.as_ref(), databases[0]).await
            }
        }
    }

    /// How far it came; `None`: there is nothing of it.
    pub(crate) async fn state(&self) -> Result<Option<State>> {
        let node = self.marker_node().await?;
        match node.one(redis::cmd("GET").arg(self.token.marker())).await? {
            Value::Nil => Ok(None),
            value => State::read(&reply::bytes(value)?).map(Some),
        }
    }

    pub(crate) async fn state_apart(&self) -> Result<Option<State>> {
        self.on_runtime(|this| async move { this.state().await }).await
    }

    pub(crate) async fn set_state(&self, state: State) -> Result<()> {
        let node = self.marker_node().await?;
        // Only what is there: a marker that is gone means that the server lost the rest, too.
        let mut set = redis::cmd("SET");
        set.arg(self.token.marker()).arg(state.as_str()).arg("XX");
        let mut done = node.one(&set).await;
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoSpace) {
            let mut set = redis::cmd("EVAL");
            set.arg(MARK).arg(1).arg(self.token.marker()).arg(state.as_str());
            done = node.one(&set).await;
        }
        if done? == Value::Nil {
            let what = "the marker of the restore is gone from the server";
            return Err(Error::new(ErrorKind::Unfinished, what)
                .on(self.token.marker())
                .advise("begin the restore again"));
        }
        Ok(())
    }

    /// Makes the marker, and removes what an earlier beginning staged.
    pub(crate) async fn begin(&self) -> Result<()> {
        self.on_runtime(|this| async move {
            match this.state().await? {
                None => {}
                // A switch that was begun may have died.
                Some(State::Staged | State::Sealed) => this.extras_back(false).await?,
                Some(_) => return Err(Error::out_of_order("begin", "it was committed already")),
            }
            match &this.token.way {
                Way::Swap(_) => this.claim().await,
                Way::Rename(_) => {
                    let node = this.marker_node().await?;
                    let mut set = redis::cmd("SET");
                    set.arg(this.token.marker()).arg(State::Staged.as_str());
                    node.one(&set).await?;
                    this.sweep(&KINDS).await
                }
            }
        })
        .await
    }

    fn announced(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn announce(&self, schema: &backup_core::Schema) -> Result<()> {
        let name = &schema.collection;
        if !self.token.collections.contains(name) {
            let what = "the archive has a collection that was not planned";
            return Err(Error::new(ErrorKind::Corrupt, what).on(name));
        }
        if !schema.document.get("prefix").is_some_and(serde_json::Value::is_boolean) {
            let what = "the description of a collection is not one of Redis";
            return Err(Error::new(ErrorKind::Incompatible, what).on(name));
        }
        match Extra::of(name) {
            Some(extra) => extra.check(&self.options)?,
            None => drop(restored(&self.token, &self.options).place(name)?),
        }
        self.announced().insert(name.clone());
        Ok(())
    }

    pub(crate) async fn records(&self, batch: RecordBatch) -> Result<()> {
        if !self.announced().contains(batch.collection()) {
            let what = "records came without the collection's description";
            return Err(Error::new(ErrorKind::Unfinished, what)
                .on(batch.collection())
                .advise("begin the restore again, or abort it"));
        }
        // Batches are made into commands in the order in which they come, and sent in it. What comes
        // next is made while the server works on what came before.
        let mut write = Arc::clone(&self.order).lock_owned().await;
        self.on_runtime(|this| async move {
            let targets = this.connected().await?;
            write.field_deadlines = targets.iter().all(|to| to.staging.has_field_deadlines());
            let now = now_ms();
            let mut rest = 0..batch.len();
            let mut make = |write: &mut Write| {
                let mut pipes: Vec<Pipeline> = targets.iter().map(|_| Pipeline::new()).collect();
                let mut lane = |db: u32, key: &[u8]| find(&targets, db, key);
                write.some(&batch, &mut rest, now, &mut lane, &mut pipes)?;
                Ok::<_, Error>((pipes, !rest.is_empty()))
            };
            let (mut pipes, mut more) = make(&mut write)?;
            let turn = this.turn.lock().await;
            while more {
                let (sent, made) = join(send(&targets, &pipes), async { make(&mut write) }).await;
                sent.map_err(|error| error.on(batch.collection()))?;
                (pipes, more) = made?;
            }
            drop(write);
            let sent = send(&targets, &pipes).await;
            drop(turn);
            sent.map_err(|error| error.on(batch.collection()))
        })
        .await
    }

    pub(crate) async fn connected(&self) -> Result<Arc<[Target]>> {
        let connect = || async { Ok(self.targets().await?.into()) };
        self.connected.get_or_try_init(connect).await.map(Arc::clone)
    }

    /// Ends staging: what could be done only once all was there.
    pub(crate) async fn seal(&self) -> Result<State> {
        let state = self.state().await?;
        let state = state.ok_or_else(|| Error::out_of_order("verify", "nothing is staged"))?;
        if state != State::Staged {
            return Ok(state);
        }
        for target in self.targets().await? {
            self.cancel.check()?;
            self.finish_streams(&target).await?;
            self.set_deadlines(&target.staging, &self.staged_place(), false).await?;
        }
        self.set_state(State::Sealed).await?;
        Ok(State::Sealed)
    }

    /// The hashes in which a restore keeps notes of one kind.
    pub(crate) async fn notes(&self, node: &Node, kind: char) -> Result<Vec<Bytes>> {
        if !self.by_slot() {
            return Ok(vec![helper(&self.token.id, kind, None).into()]);
        }
        names(node, &pattern(&self.token.id, kind), &self.cancel).await
    }

    async fn finish_streams(&self, target: &Target) -> Result<()> {
        let (node, place) = (&target.staging, self.staged_place());
        let what = "a stream cannot be made as it was";
        // Entries that were deleted while they were pending.
        for note in self.notes(node, 't').await? {
            let members = reply::list(node.one(redis::cmd("SMEMBERS").arg(&note[..])).await?)?;
            let mut commands = Pipeline::new();
            for member in members {
                let member = reply::bytes(member)?;
                let space = member.iter().position(|byte| *byte == b' ').unwrap_or(0);
                let key = &member[(space + 1).min(member.len())..];
                commands.cmd("XDEL").arg(&place.name(key)[..]).arg(&member[..space]);
            }
            node.every(what, &commands).await?;
        }
        for note in self.notes(node, 's').await? {
            let ids = reply::pairs(node.one(redis::cmd("HGETALL").arg(&note[..])).await?)?;
            let mut commands = Pipeline::new();
            for (key, ids) in ids {
                let name = place.name(&reply::bytes(key)?);
                let ids = reply::text(ids)?;
                let mut ids = ids.split(' ');
                let (Some(last), Some(deleted), Some(added)) = (ids.next(), ids.next(), ids.next())
                else {
                    return Err(reply::odd("a note of a restore"));
                };
                // One without entries and groups does not exist yet.
                commands
                    .cmd("XGROUP")
                    .arg("CREATE")
                    .arg(&name[..])
                    .arg("-")
                    .arg("0")
                    .arg("MKSTREAM");
                commands.cmd("XGROUP").arg("DESTROY").arg(&name[..]).arg("-");
                let set = commands.cmd("XSETID").arg(&name[..]).arg(last);
                set.arg("ENTRIESADDED").arg(added).arg("MAXDELETEDID").arg(deleted);
            }
            for reply in node.all(&commands).await? {
                // There may be a group of this name, which then stays as it is.
                if reply::code(&reply) != Some("BUSYGROUP") {
                    reply::checked(what, reply)?;
                }
            }
        }
        Ok(())
    }

    /// Removes what is kept under names of these kinds.
    pub(crate) async fn sweep(&self, kinds: &[&str]) -> Result<()> {
        for target in self.targets().await? {
            for kind in kinds {
                let kind = kind.chars().next().unwrap_or('n');
                let found =
                    names(&target.live, &pattern(&self.token.id, kind), &self.cancel).await?;
                for round in found.chunks(ROUND) {
                    let mut commands = Pipeline::new();
                    for name in round {
                        commands.cmd("UNLINK").arg(&name[..]);
                    }
                    target.live.every("a key of the restore cannot be removed", &commands).await?;
                }
            }
        }
        Ok(())
    }
}

async fn send(targets: &[Target], pipes: &[Pipeline]) -> Result<()> {
    let sent = targets.iter().zip(pipes).map(|(target, pipe)| async move {
        let what = "the server did not take what is restored";
        target.staging.every(what, pipe).await.map(drop)
    });
    try_join_all(sent).await.map(drop)
}

/// The naming under which the collections of a restore have their keys.
pub(crate) fn restored(token: &Token, options: &RedisOptions) -> Naming {
    restored_with(token, options, None)
}

/// As [`restored`], with another collection.
pub(crate) fn restored_with(
    token: &Token,
    options: &RedisOptions,
    other: Option<&String>,
) -> Naming {
    let databases = options.naming().databases().to_vec();
    let several = databases.len() > 1;
    let name = |collection: &String| {
        let name = match collection.split_once('/') {
            Some((_, name)) if several => name,
            _ => collection,
        };
        (name != REST).then(|| name.to_owned())
    };
    Naming::new(
        Prefixes::Of(token.collections.iter().chain(other).filter_map(name).collect()),
        databases,
    )
}

/// Every name that a pattern matches.
pub(crate) async fn names(node: &Node, pattern: &str, cancel: &Cancel) -> Result<Vec<Bytes>> {
    let mut found = BTreeSet::new();
    let mut cursor = 0;
    loop {
        cancel.check()?;
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(ROUND);
        let (next, page) = reply::page(node.one(&scan).await?)?;
        for name in page {
            found.insert(reply::bytes(name)?);
        }
        cursor = next;
        if cursor == 0 {
            return Ok(found.into_iter().collect());
        }
    }
}

pub(crate) fn find(targets: &[Target], db: u32, key: &[u8]) -> Result<usize> {
    let slot = std::cell::LazyCell::new(|| slots::slot(key));
    let fits = |target: &Target| {
        target.db == db && target.slots.as_ref().is_none_or(|slots| slots.has(*slot))
    };
    targets.iter().position(fits).ok_or_else(|| {
        Error::new(ErrorKind::Changed, "no server of the cluster has the slot of a key")
    })
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
