//! Backing up: pinning the database, in either form.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, PinRequest, Pinned, Result, Source, Worker};
use rusqlite::Connection;

use crate::{
    SqliteStore,
    config::Form,
    connect::{self, Access},
    error::busy,
    logical, native,
};

/// What a session's thread owns.
#[derive(Default)]
pub(crate) struct Reader {
    /// The live database, in a read transaction, until it is not needed any more.
    pub(crate) live: Option<Connection>,
    /// The temporary copy, if there is one.
    pub(crate) copy: Option<native::TempCopy>,
}

#[async_trait]
impl Source for SqliteStore {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        let config = Arc::clone(&self.config);
        if config.form == Form::Native && !request.collections.is_empty() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the native form of a database cannot leave tables out",
            )
            .on(config.path.display())
            .advise("back up the whole database, or use the logical form"));
        }
        let worker = Worker::spawn("sqlite source", || Ok(Reader::default()))?;
        let pinning = Arc::clone(&config);
        worker
            .call(move |reader| {
                let live = pinning.connect(&pinning.path, Access::Read)?;
                connect::pin(&live).map_err(|error| {
                    // A writer in rollback mode kept everybody out for the whole timeout.
                    let error = match error.kind() {
                        ErrorKind::Busy => {
                            busy("the database was locked by a writer for too long").because(error)
                        }
                        _ => error,
                    };
                    error.on(pinning.path.display())
                })?;
                reader.live = Some(live);
                Ok(())
            })
            .await?;
        let session = match config.form {
            Form::Native => native::session(config, worker, request.cancel.clone()),
            Form::Logical => logical::session(config, worker, request),
        };
        Ok(Pinned::Pinned { session, mark: None })
    }
}
