//! Deadlines that are kept aside until a restore ends: those of keys, and those of fields.

use backup_core::Result;
use bytes::Bytes;
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
            let mut cursor = Some(0);
            while let Some(kept) = self.kept(node, &note, &mut cursor).await? {
                let mut commands = Pipeline::new();
                for (key, at) in kept {
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
            }
        }
        Ok(())
    }

    /// Sets the deadlines of fields that are kept aside.
    pub(crate) async fn set_field_deadlines(&self, node: &Node) -> Result<()> {
        let place = Place::aside(&self.token.id, 'h');
        for note in names(node, &pattern(&self.token.id, 'h'), &self.cancel).await? {
            let Some(key) = place.key_of(&note) else { continue };
            let mut cursor = Some(0);
            while let Some(kept) = self.kept(node, &note, &mut cursor).await? {
                let mut commands = Pipeline::new();
                for (field, at) in kept {
                    // The application may have written it meanwhile.
                    let set = commands.cmd("HPEXPIREAT").arg(&key[..]).arg(at).arg("NX");
                    set.arg("FIELDS").arg(1).arg(&field[..]);
                }
                for reply in node.all(&commands).await? {
                    // Or made something else of the key.
                    if reply::code(&reply) != Some("WRONGTYPE") {
                        reply::checked("a deadline cannot be set", reply)?;
                    }
                }
            }
            node.one(redis::cmd("UNLINK").arg(&note[..])).await?;
        }
        Ok(())
    }

    /// A page of what is kept in a hash, as the server is to have it; `None` at the end.
    async fn kept(
        &self,
        node: &Node,
        note: &[u8],
        cursor: &mut Option<u64>,
    ) -> Result<Option<Vec<(Bytes, i64)>>> {
        let Some(from) = *cursor else { return Ok(None) };
        self.cancel.check()?;
        let mut scan = redis::cmd("HSCAN");
        scan.arg(note).arg(from).arg("COUNT").arg(ROUND);
        let (next, page) = reply::page(node.one(&scan).await?)?;
        *cursor = (next != 0).then_some(next);
        let kept = reply::pairs(Value::Array(page))?.into_iter().map(|(name, at)| {
            Ok((reply::bytes(name)?, reply::integer(&at)?.saturating_add(self.token.shift)))
        });
        kept.collect::<Result<_>>().map(Some)
    }
}
