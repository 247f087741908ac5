//! Makes a server have other functions, users or settings.

use backup_core::Result;
use bytes::Bytes;
use redis::{Cmd, Pipeline};

use super::{Extra, Named};
use crate::{client::Node, rdb::CRC, reply};

impl Extra {
    /// Makes a server have `new` where it has `old`. Functions and settings are taken all or not
    /// at all; of users some may be new when it fails. The user that asks stays.
    pub(crate) async fn apply(self, node: &Node, old: &Named, new: &Named) -> Result<()> {
        let changed: Vec<_> =
            new.iter().filter(|(name, text)| old.get(*name) != Some(*text)).collect();
        if changed.is_empty() && old.len() == new.len() {
            return Ok(());
        }
        match self {
            Self::Functions if new.is_empty() => {
                node.one(redis::cmd("FUNCTION").arg("FLUSH").arg("SYNC")).await.map(drop)
            }
            Self::Functions => {
                let mut restore = redis::cmd("FUNCTION");
                restore.arg("RESTORE").arg(payload(new.values())).arg("FLUSH");
                node.one(&restore).await.map(drop)
            }
            Self::Users => {
                let own = whoami(node).await?;
                let mut all = Pipeline::new();
                for (name, rules) in changed {
                    let set = all.cmd("ACL").arg("SETUSER").arg(&name[..]).arg("reset");
                    rules.split(|byte| *byte == b' ').filter(|rule| !rule.is_empty()).for_each(
                        |rule| {
                            set.arg(rule);
                        },
                    );
                }
                let gone = |name: &&Bytes| !new.contains_key(*name) && **name != own;
                for name in old.keys().filter(gone) {
                    all.cmd("ACL").arg("DELUSER").arg(&name[..]);
                }
                node.transaction("a user cannot be made", &all).await.map(drop)
            }
            // Those that are not named stay.
            Self::Settings if changed.is_empty() => Ok(()),
            Self::Settings => {
                let mut set = redis::cmd("CONFIG");
                set.arg("SET");
                for (name, value) in changed {
                    set.arg(&name[..]).arg(&value[..]);
                }
                node.one(&set).await.map(drop)
            }
        }
    }
}

/// The user of a connection.
pub(crate) async fn whoami(node: &Node) -> Result<Bytes> {
    let mut ask = Cmd::new();
    ask.arg("ACL").arg("WHOAMI");
    reply::bytes(node.one(&ask).await?)
}

/// What `FUNCTION DUMP` would say of these libraries: as they stand in a snapshot, the version
/// of its form, the checksum. The version is that of Redis 7.0, the first with functions.
fn payload<'c>(libraries: impl Iterator<Item = &'c Bytes>) -> Vec<u8> {
    let mut payload = Vec::new();
    for code in libraries {
        payload.push(245);
        payload.push(0x80);
        payload.extend_from_slice(&(code.len() as u32).to_be_bytes());
        payload.extend_from_slice(code);
    }
    payload.extend_from_slice(&10_u16.to_le_bytes());
    let sum = CRC.checksum(&payload);
    payload.extend_from_slice(&sum.to_le_bytes());
    payload
}
