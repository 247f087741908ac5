//! The engine: its errors in our words, its panics as errors.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use backup_core::{Error, ErrorKind, Result};
use qdrant_edge::{EdgeConfig, EdgeShard, OperationError, OperationResult};

/// An open shard.
pub(crate) struct Engine(Option<Arc<EdgeShard>>);

impl Engine {
    /// Makes a shard in a folder that is there and holds none.
    pub(crate) fn create(folder: &Path, config: EdgeConfig) -> Result<Self> {
        let made = guarded(|| EdgeShard::new(folder, config));
        made.map(Self::new).map_err(failed("a shard could not be made", folder))
    }

    /// Opens the shard of a folder; `config` replaces the one that is kept there.
    pub(crate) fn open(folder: &Path, config: Option<EdgeConfig>) -> Result<Self> {
        let opened = guarded(|| EdgeShard::load(folder, config));
        opened.map(Self::new).map_err(failed("a shard could not be opened", folder))
    }

    fn new(shard: EdgeShard) -> Self {
        Self(Some(Arc::new(shard)))
    }

    /// The engine's own handle. It must be gone before the shard is closed.
    pub(crate) fn shard(&self) -> Result<Arc<EdgeShard>> {
        self.0.clone().ok_or_else(|| Error::adapter("a shard is used after it was closed"))
    }

    /// Calls into the engine; `what` says what could not be done if it fails.
    pub(crate) fn call<T>(
        &self,
        what: &str,
        job: impl FnOnce(&EdgeShard) -> OperationResult<T>,
    ) -> Result<T> {
        let shard = self.shard()?;
        guarded(|| job(&shard)).map_err(failed(what, shard.path()))
    }

    /// Brings everything to the disk. Nobody else may be using the shard.
    pub(crate) fn flush(&self) -> Result<()> {
        self.call("a shard could not be brought to the disk", |shard| {
            shard.flush();
            Ok(())
        })
    }

    /// Flushes and closes.
    pub(crate) fn close(mut self) -> Result<()> {
        let Some(shard) = self.0.take() else { return Ok(()) };
        let folder = shard.path().to_owned();
        let closed = guarded(|| {
            drop(shard);
            Ok(())
        });
        closed.map_err(failed("a shard could not be brought to the disk", &folder))
    }
}

impl Drop for Engine {
    /// The engine flushes when it is dropped and panics where it cannot.
    fn drop(&mut self) {
        let shard = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(shard)));
    }
}

enum Failure {
    Engine(OperationError),
    Panic(String),
}

fn guarded<T>(job: impl FnOnce() -> OperationResult<T>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(done) => done.map_err(Failure::Engine),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Failure::Panic(text.unwrap_or_default()))
        }
    }
}

fn failed<'a>(what: &'a str, folder: &'a Path) -> impl FnOnce(Failure) -> Error + 'a {
    move |failure| {
        let (kind, cause) = match failure {
            Failure::Engine(error) => (kind(&error), error.to_string()),
            Failure::Panic(text) => (kind_of_text(&text), format!("the engine panicked: {text}")),
        };
        let error = Error::new(kind, what).on(folder.display());
        let error = match kind {
            ErrorKind::Locked => error.advise(
                "only one process, and in it one handle, can have a shard open: end the other \
                 use, or clone the store that has it open",
            ),
            ErrorKind::Incompatible => {
                error.advise("restore it into a collection with the vectors that the archive has")
            }
            _ => error,
        };
        error.because(cause)
    }
}

fn kind(error: &OperationError) -> ErrorKind {
    match error {
        OperationError::ServiceError { description, .. } => kind_of_text(description),
        OperationError::InconsistentStorage { .. } => ErrorKind::Corrupt,
        OperationError::OutOfMemory { .. } => ErrorKind::LimitExceeded,
        OperationError::Cancelled { .. } => ErrorKind::Cancelled,
        OperationError::Timeout { .. } => ErrorKind::Busy,
        _ => ErrorKind::Incompatible,
    }
}

// The engine keeps no other trace of what the system said.
fn kind_of_text(text: &str) -> ErrorKind {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["StorageFull", "No space left", "QuotaExceeded", "quota exceeded"]) {
        ErrorKind::NoSpace
    } else if says(&["WouldBlock"]) {
        ErrorKind::Locked
    } else if says(&["PermissionDenied", "Permission denied", "ReadOnlyFilesystem"]) {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::Io
    }
}
