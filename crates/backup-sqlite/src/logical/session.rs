//! Backing up in the logical form.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use backup_core::{
    Cancel, CollectionEnd, Error, ErrorKind, Metadata, Part, Partition, PinRequest, Result, Schema,
    SourceSession, Summary, Worker,
};
use futures::{
    FutureExt, SinkExt, StreamExt, channel::mpsc, executor::block_on, future::BoxFuture,
    lock::Mutex,
};
use rusqlite::Connection;

use super::{
    document::{DATABASE, Document},
    read, tables,
};
use crate::{config::Config, connect, error::sql, native::TempCopy, source::Reader, version};

const PARTITION: &str = "main";
// How many parts wait to be taken; each has some megabytes at most, if no record has more.
const WAITING: usize = 1;

struct Session {
    // Never read, but its end ends the thread.
    _worker: Worker<Reader>,
    parts: Mutex<mpsc::Receiver<Part>>,
    outcome: Mutex<Option<BoxFuture<'static, Result<Metadata>>>>,
    facts: Mutex<Metadata>,
}

pub(crate) fn session(
    config: Arc<Config>,
    worker: Worker<Reader>,
    request: &PinRequest,
) -> Box<dyn SourceSession> {
    let (give, parts) = mpsc::channel(WAITING);
    let wanted: BTreeSet<String> = request.collections.iter().cloned().collect();
    let cancel = request.cancel.clone();
    // Begins at once, and waits whenever nobody takes what it made.
    let outcome = worker.call(move |reader| {
        let produced = Producer { wanted, cancel, give }.run(&config, reader);
        *reader = Reader::default();
        produced
    });
    Box::new(Session {
        _worker: worker,
        parts: Mutex::new(parts),
        outcome: Mutex::new(Some(outcome.boxed())),
        facts: Mutex::default(),
    })
}

struct Producer {
    wanted: BTreeSet<String>,
    cancel: Cancel,
    give: mpsc::Sender<Part>,
}

impl Producer {
    fn give(&self, part: Part) -> Result<()> {
        // Nobody takes it any more: the session was dropped.
        block_on(self.give.clone().send(part))
            .map_err(|_| Error::new(ErrorKind::Cancelled, "the backup of a database was given up"))
    }

    fn run(&self, config: &Config, reader: &mut Reader) -> Result<Metadata> {
        let mut live =
            reader.live.take().ok_or_else(|| Error::adapter("a session has no database"))?;
        let facts = connect::facts(&live)?;
        if !connect::is_wal(&live)? {
            // Here a reader keeps writers out: it must not last as long as the backup.
            let copy = TempCopy::make(config, &live, &self.cancel)?;
            let copied = copy.connect(config)?;
            connect::pin(&copied)?;
            reader.copy = Some(copy);
            live = copied;
        }
        self.database(&live).map_err(|e| e.on(config.path.display()))?;
        live.close().map_err(|(_, e)| sql("could not close the database")(e))?;
        Ok(facts)
    }

    fn database(&self, connection: &Connection) -> Result<()> {
        let catalog = tables::read(connection)?;
        self.check_wanted(&catalog)?;
        let warnings = version::notice().into_iter().chain(catalog.notices);
        for notice in warnings.filter(|n| n.collection.is_empty() || self.wants(&n.collection)) {
            self.give(Part::Notice(notice))?;
        }
        if self.wants(DATABASE) {
            self.begin(DATABASE, &catalog.database)?;
            self.end(DATABASE, 0)?;
        }
        for table in catalog.tables.iter().filter(|table| self.wants(&table.name)) {
            self.begin(&table.name, &table.document)?;
            let count = read::scan(
                connection,
                table,
                &self.cancel,
                |batch| self.give(Part::Records(batch)),
                |notice| self.give(Part::Notice(notice)),
            )?;
            self.end(&table.name, count)?;
        }
        Ok(())
    }

    fn wants(&self, collection: &str) -> bool {
        self.wanted.is_empty() || self.wanted.contains(collection)
    }

    fn check_wanted(&self, catalog: &tables::Catalog) -> Result<()> {
        let known = |name: &String| {
            name == DATABASE
                || catalog.tables.iter().any(|table| table.name == *name)
                || catalog.notices.iter().any(|notice| notice.collection == *name)
        };
        match self.wanted.iter().find(|name| !known(name)) {
            Some(name) => Err(Error::new(ErrorKind::NotFound, "there is no such table").on(name)),
            None => Ok(()),
        }
    }

    fn begin(&self, collection: &str, document: &Document) -> Result<()> {
        self.give(Part::Schema(Schema {
            collection: collection.to_owned(),
            document: document.write()?,
            info: document.info(),
        }))
    }

    fn end(&self, collection: &str, count: u64) -> Result<()> {
        self.give(Part::End(CollectionEnd {
            collection: collection.to_owned(),
            count: Some(count),
            ..CollectionEnd::default()
        }))
    }
}

impl Session {
    // How the production ended; its facts are kept.
    async fn outcome(&self) -> Result<()> {
        if let Some(outcome) = self.outcome.lock().await.take() {
            *self.facts.lock().await = outcome.await?;
        }
        Ok(())
    }
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(vec![Partition::new(PARTITION)])
    }

    async fn next(&self, _: &Partition) -> Result<Option<Part>> {
        match self.parts.lock().await.next().await {
            Some(part) => Ok(Some(part)),
            None => self.outcome().await.map(|()| None),
        }
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        self.parts.lock().await.close();
        match self.outcome().await {
            // Closed before the end, which is no failure of the session.
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            other => other?,
        }
        let mut summary = Summary::new();
        summary.metadata = std::mem::take(&mut *self.facts.lock().await);
        summary.metadata.extend(version::warning());
        Ok(summary)
    }
}
