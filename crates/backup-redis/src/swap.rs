//! The switch of whole databases, at one moment.
//!
//! What is staged stands in a spare database, and so does the marker. One transaction takes the
//! marker away, swaps, and puts it into the spare one again, which then holds what was live:
//! `SWAPDB` is its own inverse, so that only the marker tells whether it ran.

use backup_core::{Error, ErrorKind, Result};
use redis::{Pipeline, Value};

use crate::{
    stage::{KINDS, Session},
    store,
    token::{State, Way},
};

/// The marker; what it holds, what it is to hold, and pairs of databases.
const SWAP: &str = "#!lua flags=allow-oom\n\
     redis.call('SELECT', ARGV[4]) \
     if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
     for i = 3, #ARGV, 2 do \
       redis.call('SELECT', ARGV[i + 1]) redis.call('DEL', KEYS[1]) \
       redis.call('SWAPDB', ARGV[i], ARGV[i + 1]) redis.call('SET', KEYS[1], ARGV[2]) \
     end return 1";

impl Session {
    /// Takes empty databases for staging, or those that the restore has already.
    pub(crate) async fn claim(&self) -> Result<()> {
        let Way::Swap(pairs) = &self.token.way else { return Ok(()) };
        for (_, spare) in pairs {
            let node = self.client.first(*spare).await?;
            let mut set = redis::cmd("SET");
            set.arg(self.token.marker()).arg(State::Staged.as_str());
            let claimed = node.one(set.clone().arg("NX")).await? != Value::Nil;
            if !claimed {
                // Ours, from an earlier beginning.
                let mut again = Pipeline::new();
                again.cmd("FLUSHDB");
                again.add_command(set);
                node.transaction("the spare database cannot be emptied", &again).await?;
            } else if store::count(&node).await? != 1 {
                node.one(redis::cmd("DEL").arg(self.token.marker())).await?;
                let what = "the spare database is not empty any more";
                return Err(Error::new(ErrorKind::Busy, what)
                    .on(format!("database {spare}"))
                    .advise("plan the restore again"));
            }
        }
        Ok(())
    }

    /// Swaps, unless the marker says that it was done.
    pub(crate) async fn swap(&self, pairs: &[(u32, u32)], to: State) -> Result<()> {
        let node = self.client.first(pairs[0].1).await?;
        let marker = self.token.marker();
        // Nobody else may have switched between the question and the transaction.
        let mut ask = Pipeline::new();
        ask.cmd("WATCH").arg(&marker);
        ask.cmd("GET").arg(&marker);
        let known = node.every("the marker of the restore cannot be read", &ask).await?;
        let from = match known.into_iter().nth(1) {
            None | Some(Value::Nil) => {
                return Err(Error::out_of_order("the switch", "nothing is staged"));
            }
            Some(value) => State::read(&crate::reply::bytes(value)?)?,
        };
        if from == to {
            return Ok(());
        }
        let wanted = if to == State::Undone { State::Committed } else { State::Sealed };
        if from != wanted {
            return Err(Error::out_of_order("the switch", from.as_str()));
        }
        let mut all = Pipeline::new();
        for (live, spare) in pairs {
            all.cmd("SELECT").arg(*spare);
            all.cmd("DEL").arg(&marker);
            all.cmd("SWAPDB").arg(*live).arg(*spare);
            all.cmd("SET").arg(&marker).arg(to.as_str());
        }
        let what = "the databases cannot be swapped";
        let mut done = node.transaction(what, &all).await;
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoSpace) {
            // A server without memory queues nothing.
            let mut script = redis::cmd("EVAL");
            script.arg(SWAP).arg(1).arg(&marker).arg(from.as_str()).arg(to.as_str());
            for (live, spare) in pairs {
                script.arg(*live).arg(*spare);
            }
            let swapped = node.one(&script).await?;
            done = Ok((swapped == Value::Int(1)).then_some(()));
        }
        match done? {
            Some(()) => Ok(()),
            None => Err(Error::new(ErrorKind::Busy, "another process goes on with this restore")
                .advise("let it end, then look again")),
        }
    }

    /// Empties the spare databases; the one with the marker that counts comes last.
    pub(crate) async fn release(&self, pairs: &[(u32, u32)]) -> Result<()> {
        // What is left of notes went along with the content.
        let mut unlink = redis::cmd("UNLINK");
        for kind in KINDS.iter().flat_map(|kind| kind.chars()) {
            unlink.arg(crate::place::helper(&self.token.id, kind, None));
        }
        for (live, spare) in pairs.iter().rev() {
            self.client.first(*live).await?.one(&unlink).await?;
            let node = self.client.first(*spare).await?;
            // Without the marker it is somebody else's. No transaction: a server without memory
            // takes none.
            let there = node.one(redis::cmd("EXISTS").arg(self.token.marker())).await?;
            if there == Value::Int(1) {
                node.one(redis::cmd("FLUSHDB").arg("ASYNC")).await?;
            }
        }
        Ok(())
    }
}
