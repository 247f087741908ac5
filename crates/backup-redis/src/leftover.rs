//! What a restore left on a server whose journal is gone.

use backup_core::{Cancel, Error, ErrorKind, Result};
use redis::Value;

use crate::{
    RedisStore,
    naming::OWN,
    reply,
    stage::{Session, names},
    token::{State, Token, Way},
};

/// A restore that was begun on a server and is not over: it runs, or it died. One that died is
/// taken up again by `resume`, if its journal is there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// The restore's id, as in its journal.
    pub restore_id: String,
    /// The logical database in which its marker stands: one of the store, or the spare one in
    /// which everything is staged.
    pub database: u32,
    /// How far it came: up to `sealed` all live keys are as they were.
    pub state: String,
}

impl RedisStore {
    /// Restores that were begun on the server, in any of its logical databases, and are not over.
    ///
    /// # Errors
    /// A server that cannot be reached.
    pub async fn leftovers(&self) -> Result<Vec<Leftover>> {
        let store = self.clone();
        self.client.run(async move { store.find_leftovers().await }).await
    }

    /// Removes what a restore staged that died before it switched. Make sure that it does not
    /// run.
    ///
    /// # Errors
    /// [`Unfinished`](ErrorKind::Unfinished): it had begun to switch, and only `resume` knows how
    /// to go on. [`Unsupported`](ErrorKind::Unsupported): it staged in a database that does not
    /// belong to this store, which is not emptied without a look at it.
    pub async fn remove_leftover(&self, leftover: &Leftover) -> Result<()> {
        let databases = self.options.naming().databases().to_vec();
        if !databases.contains(&leftover.database) {
            let what = "a spare database is not emptied without a look at it";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .on(format!("database {}", leftover.database))
                .advise("look at what it holds, then empty it with FLUSHDB"));
        }
        let token = Token {
            id: leftover.restore_id.clone(),
            way: Way::Rename(databases.clone()),
            merge: false,
            collections: Vec::new(),
            shift: 0,
        };
        token.check(&databases)?;
        let session = Session::new(&self.client, &self.options, token, Cancel::new());
        let id = leftover.restore_id.clone();
        let work = async move {
            match session.state().await? {
                None => Ok(()),
                Some(State::Staged | State::Sealed) if !session.keeps_extras().await? => {
                    session.give_up().await
                }
                Some(state) => {
                    Err(Error::new(ErrorKind::Unfinished, "the restore had begun to switch")
                        .on(format!("{id}, {}", state.as_str())))
                }
            }
        };
        self.client.run(work).await
    }

    async fn find_leftovers(&self) -> Result<Vec<Leftover>> {
        let own = std::str::from_utf8(OWN).unwrap_or_default();
        let mut found = Vec::new();
        for primary in self.client.primaries().await? {
            let first = self.client.at(primary.address.as_ref(), 0).await?;
            let keyspace = first.info("keyspace").await?;
            let filled: Vec<u32> = keyspace
                .lines()
                .filter_map(|(name, _)| name.strip_prefix("db")?.parse().ok())
                .collect();
            for database in filled {
                let node = self.client.at(primary.address.as_ref(), database).await?;
                for name in names(&node, &format!("{own}*"), &Cancel::new()).await? {
                    // Everything but the marker has the kind of note behind the id.
                    let Some(id) = std::str::from_utf8(&name[OWN.len()..]).ok() else { continue };
                    if id.contains(':') {
                        continue;
                    }
                    let state = node.one(redis::cmd("GET").arg(&name[..])).await?;
                    if state != Value::Nil {
                        let (restore_id, state) = (id.to_owned(), reply::text(state)?);
                        found.push(Leftover { restore_id, database, state });
                    }
                }
            }
        }
        Ok(found)
    }
}
