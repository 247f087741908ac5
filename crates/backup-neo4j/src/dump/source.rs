//! Dumping.

use std::sync::Arc;

use backup_core::{
    Blob, Error, ErrorKind, Part, Partition, PinRequest, Pinned, Result, Source, SourceSession,
    Summary, async_trait,
};
use futures::{StreamExt, lock::Mutex, stream};

use super::{Neo4jDump, Place, admin::Dump, in_thread};

#[async_trait]
impl Source for Neo4jDump {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        if !request.collections.is_empty() || !request.conditions.is_empty() {
            let what = "a dump of a database cannot leave anything out";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .on(&self.0.database)
                .advise("select in a backup of the running server"));
        }
        let version = in_thread(&self.0, |place| place.admin.version()).await?;
        let dump = self.0.admin.dump(&self.0.database).await?;
        let session = Session {
            database: self.0.database.clone(),
            version,
            dump: Arc::new(Mutex::new(Progress::Ready(dump))),
        };
        // The tool keeps the database to itself, so all of it is of one moment. But it has to stay
        // stopped until the end: a host that pauses has to go on pausing.
        Ok(Pinned::Live { session: Box::new(session), estimate: None })
    }
}

struct Session {
    database: String,
    version: String,
    dump: Arc<Mutex<Progress>>,
}

enum Progress {
    Ready(Dump),
    Running(Dump),
    Ended { whole: bool },
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(vec![Partition::new("dump")])
    }

    async fn next(&self, _: &Partition) -> Result<Option<Part>> {
        let mut progress = self.dump.lock().await;
        *progress = match std::mem::replace(&mut *progress, Progress::Ended { whole: false }) {
            Progress::Ready(dump) => Progress::Running(dump),
            // Asked again, there is nothing more.
            other => {
                *progress = other;
                return Ok(None);
            }
        };
        let body = stream::unfold(Arc::clone(&self.dump), |dump| async move {
            let mut progress = dump.lock().await;
            let Progress::Running(running) = &mut *progress else { return None };
            let piece = running.next().await.transpose();
            if !matches!(piece, Some(Ok(_))) {
                *progress = Progress::Ended { whole: piece.is_none() };
            }
            drop(progress);
            piece.map(|piece| (piece, dump))
        });
        let text = |text: &str| serde_json::Value::from(text);
        Ok(Some(Part::Blob(Blob {
            name: Place::BLOB.to_owned(),
            len: None,
            masked: Vec::new(),
            metadata: [
                ("database".to_owned(), text(&self.database)),
                ("neo4j_version".to_owned(), text(&self.version)),
            ]
            .into(),
            body: body.boxed(),
        })))
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        let mut progress = self.dump.lock().await;
        let ended = std::mem::replace(&mut *progress, Progress::Ended { whole: false });
        let mut summary = Summary::new();
        match ended {
            Progress::Ended { whole: true } => summary.changed = Some(false),
            Progress::Ended { whole: false } => {}
            Progress::Ready(dump) | Progress::Running(dump) => dump.stop(),
        }
        Ok(summary)
    }
}
