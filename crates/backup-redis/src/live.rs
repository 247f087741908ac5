//! Reading a server's keys while it is used, or while writers are held back.

use std::sync::Arc;

use backup_core::{Cancel, Notice, NoticeKind, Part, Result};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    client::{Client, Primary},
    naming::Naming,
    options::RedisOptions,
    reader::{Found, Reader},
    records::Records,
};

/// What tells of each server whether it was written to; `None` where one does not say.
pub(crate) async fn writes(client: &Client, primaries: &[Primary]) -> Option<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    for primary in primaries {
        let node = client.at(primary.address.as_ref(), 0).await.ok()?;
        let info = node.info("persistence").await.ok()?;
        let changes = info.number("rdb_changes_since_last_save")?;
        all.push((changes, info.number("rdb_last_save_time")?));
    }
    Some(all)
}

/// One database of one server.
pub(crate) struct Lane {
    pub(crate) client: Client,
    pub(crate) options: Arc<RedisOptions>,
    pub(crate) primary: Primary,
    pub(crate) db: u32,
    pub(crate) asked: Vec<String>,
    pub(crate) cancel: Cancel,
}

impl Lane {
    pub(crate) async fn read(&self, send: &mpsc::Sender<Result<Part>>) -> Result<()> {
        let naming = self.options.naming();
        let node = self.client.at(self.primary.address.as_ref(), self.db).await?;
        let mut records = Records::new(naming.clone(), self.options.look_inside, &self.asked);
        if self.options.names_rest() {
            records.announce(self.db)?;
        }
        // Keys of other collections need not be read.
        let (db, asked, of) = (self.db, self.asked.clone(), naming.clone());
        let wants = move |key: &[u8]| {
            asked.is_empty() || asked.contains(&of.collection(db, of.split(key).0))
        };
        let cancel = self.cancel.clone();
        let reader = Reader::scan(node, self.db, Arc::clone(&self.options), cancel);
        let mut pages = reader.ahead(wants);
        while let Some(page) = pages.recv().await {
            for found in page? {
                let mut notice = None;
                match found {
                    Found::Item(item) => records.push(&item)?,
                    Found::Torn(key) => notice = Some(Part::Notice(self.torn(&naming, &key))),
                    Found::Key(_) => {}
                }
                while let Some(part) = records.next().or_else(|| notice.take()) {
                    if send.send(Ok(part)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        records.finish()?;
        while let Some(part) = records.next() {
            if send.send(Ok(part)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn torn(&self, naming: &Naming, key: &Bytes) -> Notice {
        let (prefix, _) = naming.split(key);
        Notice {
            kind: NoticeKind::Changed,
            collection: naming.collection(self.db, prefix),
            subject: String::from_utf8_lossy(key).into_owned(),
            detail: "was changed while its elements were read, and may be torn".to_owned(),
        }
    }
}
