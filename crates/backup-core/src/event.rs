//! What a run tells whoever watches it.

use serde::Serialize;

use crate::{
    clock::ArchiveId,
    conflict::SkipReason,
    journal::RestoreStep,
    manifest::{StoreConsistency, StoreNotice},
};

/// Watches backups and restores: a progress bar, a log, a dashboard.
///
/// The host implements it, or hands in a closure; the engine calls it from its own threads,
/// in the order of what happened. It must return soon: the run waits for it. Nothing is
/// watched by default, and the library itself never prints.
///
/// ```
/// use backup_core::{Event, Observer};
///
/// let observer = |event: &Event| eprintln!("{}", event.to_json());
/// observer.event(&Event::Resumed { held: true });
/// ```
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Observer for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// Something that happened in a run.
///
/// The JSON form has a member `event` with the variant's name in kebab case, and the
/// variant's fields; later versions add variants and fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A backup begins.
    BackupStarted {
        /// The identity that the archive will have.
        id: ArchiveId,
        /// The stores that were asked for.
        stores: Vec<String>,
    },
    /// The application's writes are paused.
    Paused,
    /// The application may write again.
    Resumed {
        /// Whether the pause had held until then.
        held: bool,
    },
    /// A store is ready to be read.
    Pinned {
        /// The store.
        store: String,
        /// How it will be read.
        consistency: StoreConsistency,
    },
    /// A part of a store is in the archive, or in the staging area of a restore.
    Part {
        /// The store.
        store: String,
        /// The collection or root; the file name of a native snapshot.
        collection: String,
        /// Records or entries in this part.
        records: u64,
        /// Its bytes, uncompressed.
        bytes: u64,
        /// Bytes of the whole run so far.
        done: u64,
        /// Bytes of the whole run, where they are known before its end.
        total: Option<u64>,
    },
    /// A long part goes on; at most once for every MiB.
    Progress {
        /// Bytes of the whole run so far.
        done: u64,
        /// Bytes of the whole run, where they are known before its end.
        total: Option<u64>,
    },
    /// Something did not go as it should, and the backup goes on.
    Notice(StoreNotice),
    /// A store has been read to its end.
    StoreRead {
        /// The store.
        store: String,
    },
    /// The archive is complete and in its place.
    BackupFinished {
        /// The archive's identity.
        id: ArchiveId,
        /// Where it is, if it is a file.
        path: Option<String>,
        /// Its length in bytes.
        size: u64,
        /// Whether something is missing or in doubt.
        partial: bool,
    },
    /// A restore begins, or is taken up again.
    RestoreStarted {
        /// Its identity.
        restore_id: String,
        /// The stores, in the order in which they switch.
        stores: Vec<String>,
    },
    /// A restore has written down what it does next.
    Step {
        /// Its identity.
        restore_id: String,
        /// The step.
        #[serde(flatten)]
        step: RestoreStep,
    },
    /// A record of the archive is not written: one of its key is there already.
    Skipped {
        /// The store.
        store: String,
        /// The collection.
        collection: String,
        /// The record's key, as canonical JSON.
        key: String,
        /// Why the live record stays.
        reason: SkipReason,
    },
    /// A restore ended.
    RestoreFinished {
        /// Its identity.
        restore_id: String,
        /// Whether the archive's content is live; else the earlier content is.
        restored: bool,
    },
}

impl Event {
    /// The event as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("only strings, numbers and flags: JSON holds them")
    }
}

// Hands events to the observer, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Watch(Option<std::sync::Arc<dyn Observer>>);

impl Watch {
    pub(crate) fn new(observer: impl Observer + 'static) -> Self {
        Self(Some(std::sync::Arc::new(observer)))
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Some(observer) = &self.0 {
            observer.event(&event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::{Notice, NoticeKind};

    #[test]
    fn the_json_form_is_flat_and_named() {
        let notice = StoreNotice {
            store: "uploads".into(),
            notice: Notice {
                kind: NoticeKind::Grew,
                collection: "root".into(),
                subject: "a.log".into(),
                detail: "cut".into(),
            },
        };
        assert_eq!(
            Event::Notice(notice).to_json(),
            r#"{"event":"notice","store":"uploads","kind":"grew","collection":"root","subject":"a.log","detail":"cut"}"#
        );
        let step = RestoreStep::Committing { store: "state".into() };
        assert_eq!(
            Event::Step { restore_id: "r".into(), step }.to_json(),
            r#"{"event":"step","restore_id":"r","step":"committing","store":"state"}"#
        );
    }
}
