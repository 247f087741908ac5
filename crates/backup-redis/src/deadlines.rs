//! Deadlines that are kept aside until a restore ends: those of keys, and those of fields.

use backup_core::Result;
use redis::{Pipeline, Value};

use crate::{
    client::Node,
    place::{Place, pattern},
    reply,
    stage::{ROUND, Session, names, now_ms},
    write::NEAR_MS,
};

impl Session {
    /// Sets deadlines that are kept aside: those that are far, or at the end all.
    pub(crate) async fn set_deadlines(&self, node: &Node, place: &Place, all: bool) -> Result<()> {
        let near = now_ms().saturating_add(NEAR_MS);
        for note in self.notes(node, 'd').await? {
            let mut cursor = 0;
            loop {
                self.cancel.check()?;
                let mut scan = redis::cmd("HSCAN");
                scan.arg(&note[..]).arg(cursor).arg("COUNT").arg(ROUND);
                let (next, page) = reply::page(node.one(&scan).await?)?;
                let mut commands = Pipeline::new();
                for (key, at) in reply::pairs(Value::Array(page))? {
                    let key = reply::bytes(key)?;
                    let at = reply::integer(&at)?.saturating_add(self.token.shift);
                    if all || at > near {
                        let set = commands.cmd("PEXPIREAT").arg(&place.name(&key)[..]).arg(at);
                        // The application may have written it meanwhile.
                        if all {
                            set.arg("NX");
                        }
                        commands.cmd("HDEL").arg(&note[..]).arg(&key[..]);
                    }
                }
                node.every("a deadline cannot be set", &commands).await?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sets the deadlines of fields that are kept aside.
    pub(crate) async fn set_field_deadlines(&self, node: &Node) -> Result<()> {
        let place = Place::aside(&self.token.id, 'h');
        for note in names(node, &pattern(&self.token.id, 'h'), &self.cancel).await? {
            let Some(key) = place.key_of(&note) else { continue };
            let mut cursor = 0;
            loop {
                self.cancel.check()?;
                let mut scan = redis::cmd("HSCAN");
                scan.arg(&note[..]).arg(cursor).arg("COUNT").arg(ROUND);
                let (next, page) = reply::page(node.one(&scan).await?)?;
                let mut commands = Pipeline::new();
                for (field, at) in reply::pairs(Value::Array(page))? {
                    let at = reply::integer(&at)?.saturating_add(self.token.shift);
                    // The application may have written it meanwhile.
                    let set = commands.cmd("HPEXPIREAT").arg(&key[..]).arg(at).arg("NX");
                    set.arg("FIELDS").arg(1).arg(&reply::bytes(field)?[..]);
                }
                for reply in node.all(&commands).await? {
                    // Or made something else of the key.
                    if reply::code(&reply) != Some("WRONGTYPE") {
                        reply::checked("a deadline cannot be set", reply)?;
                    }
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
            node.one(redis::cmd("UNLINK").arg(&note[..])).await?;
        }
        Ok(())
    }
}
