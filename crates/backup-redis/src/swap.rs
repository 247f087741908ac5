//! The switch of whole databases, at one moment.
//!
//! What is staged stands in a spare database, and so does the marker. One transaction takes the
//! marker away, swaps, and puts it into the spare one again, which then holds what was live:
//! `SWAPDB` is its own inverse, so that only the marker tells whether it ran.

use backup_core::{Error, ErrorKind, Result};
use redis::{Pipeline, Value};

use crate::{
    stage::{Session, out_of_order},
    store,
    token::{State, Way},
};

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
            None | Some(Value::Nil) => return Err(out_of_order("the switch", "nothing is staged")),
            Some(value) => State::read(&crate::reply::bytes(value)?)?,
        };
        if from == to {
            return Ok(());
        }
        let wanted = if to == State::Undone { State::Committed } else { State::Sealed };
        if from != wanted {
            return Err(out_of_order("the switch", from.as_str()));
        }
        let mut all = Pipeline::new();
        for (live, spare) in pairs {
            all.cmd("SELECT").arg(*spare);
            all.cmd("DEL").arg(&marker);
            all.cmd("SWAPDB").arg(*live).arg(*spare);
            all.cmd("SET").arg(&marker).arg(to.as_str());
        }
        match node.transaction("the databases cannot be swapped", &all).await? {
            Some(()) => Ok(()),
            None => Err(Error::new(ErrorKind::Busy, "another process goes on with this restore")
                .advise("let it end, then look again")),
        }
    }

    /// Empties the spare databases; the one with the marker that counts comes last.
    pub(crate) async fn release(&self, pairs: &[(u32, u32)]) -> Result<()> {
        let note = crate::place::helper(&self.token.id, 'd', None);
        for (live, spare) in pairs.iter().rev() {
            // What is left of the deadlines went along with the content.
            for kind in ['s', 't'] {
                let name = crate::place::helper(&self.token.id, kind, None);
                self.client.first(*live).await?.one(redis::cmd("UNLINK").arg(name)).await?;
            }
            self.client.first(*live).await?.one(redis::cmd("UNLINK").arg(&note)).await?;
            let node = self.client.first(*spare).await?;
            let mut ask = Pipeline::new();
            ask.cmd("WATCH").arg(self.token.marker());
            ask.cmd("EXISTS").arg(self.token.marker());
            let there = node.every("the spare database cannot be read", &ask).await?;
            // Without the marker it is somebody else's.
            if there.last() == Some(&Value::Int(1)) {
                let mut flush = Pipeline::new();
                flush.cmd("FLUSHDB").arg("ASYNC");
                let what = "the spare database cannot be emptied";
                node.transaction(what, &flush).await?;
            }
        }
        Ok(())
    }
}
