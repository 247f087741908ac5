//! Every store at one moment, or as near to it as the stores and the host allow.

use std::sync::Arc;

use futures::future::join_all;

use super::options::LivePolicy;
use crate::{
    adapter::Description,
    clock::{Clock, Timestamp},
    error::{Error, ErrorKind, Result},
    event::{Event, Watch},
    manifest::{Consistency, StoreConsistency},
    part::{Notice, NoticeKind},
    quiesce::{Lease, Pauser},
    source::{Partition, PinRequest, Pinned, SourceSession},
    stores::Entry,
    worker::guarded,
};

/// A store that is ready to be read, or is missing.
pub(crate) struct Opened {
    pub(crate) entry: Arc<Entry>,
    pub(crate) description: Description,
    pub(crate) start: Timestamp,
    /// `None` for an optional store that did not answer.
    pub(crate) reading: Option<Reading>,
}

pub(crate) struct Reading {
    pub(crate) session: Box<dyn SourceSession>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) live: bool,
    pub(crate) mark: Option<String>,
}

/// How the pause went.
pub(crate) enum Pause {
    /// The host cannot pause.
    Never,
    /// It lasts: stores are to be copied under it.
    Lasts(Lease),
    /// It is over; whether it held until then.
    Over { held: bool },
}

/// What pinning needs to know.
pub(crate) struct Pinning<'a> {
    pub(crate) pauser: &'a Pauser,
    pub(crate) policy: LivePolicy,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) watch: &'a Watch,
}

impl Pinning<'_> {
    /// Fixes all stores. What was opened stands in `opened` also after an error, so that it
    /// can be closed.
    pub(crate) async fn run(
        &self,
        stores: Vec<(Arc<Entry>, PinRequest)>,
        opened: &mut Vec<Opened>,
        notices: &mut Vec<(String, Notice)>,
    ) -> Result<Pause> {
        // Before the pause: it may take its time, and shows who does not answer.
        let described =
            join_all(stores.iter().map(|(entry, _)| guarded(&entry.name, entry.source.describe())))
                .await;
        let mut there = Vec::new();
        for ((entry, request), description) in stores.into_iter().zip(described) {
            match description {
                Ok(description) => there.push((entry, request, description)),
                Err(error) => {
                    notices.push(missing(&entry, error)?);
                    opened.push(self.absent(entry));
                }
            }
        }
        let lease = self.pauser.take().await?;
        let pins = there.iter().map(|(entry, request, _)| async {
            let start = self.clock.now();
            (start, guarded(&entry.name, entry.source.pin(request)).await)
        });
        let pins = join_all(pins).await;
        let mut failure = None;
        let mut any_live = false;
        for ((entry, _, description), (start, pinned)) in there.into_iter().zip(pins) {
            let (session, live, mark) = match pinned {
                Ok(Pinned::Pinned { session, mark }) => (session, false, mark),
                Ok(Pinned::Live { session, .. }) => (session, true, None),
                Err(error) => {
                    match missing(&entry, error) {
                        Ok(notice) => notices.push(notice),
                        Err(error) => failure = failure.or(Some(error)),
                    }
                    opened.push(self.absent(entry));
                    continue;
                }
            };
            any_live |= live;
            if live && self.policy == LivePolicy::Fail {
                let what = "the store cannot fix a moment, and reading it as it changes is refused";
                failure = failure.or(Some(
                    Error::new(ErrorKind::Unsupported, what)
                        .on(&entry.name)
                        .advise("allow a pause through the copy, or a fuzzy view"),
                ));
            }
            let reading = Reading { session, partitions: Vec::new(), live, mark };
            opened.push(Opened { entry, description, start, reading: Some(reading) });
        }
        let hold = any_live && self.policy == LivePolicy::HoldPause && failure.is_none();
        let pause = match lease {
            None => Pause::Never,
            Some(lease) if hold => Pause::Lasts(lease),
            Some(lease) => Pause::Over { held: lease.release().await },
        };
        match failure {
            Some(error) => Err(error),
            None => Ok(pause),
        }
    }

    fn absent(&self, entry: Arc<Entry>) -> Opened {
        let (description, start) = (Description::default(), self.clock.now());
        Opened { entry, description, start, reading: None }
    }

    /// Asks every session what can be read in parallel.
    pub(crate) async fn partitions(
        &self,
        opened: &mut [Opened],
        notices: &mut Vec<(String, Notice)>,
    ) -> Result<()> {
        for one in opened {
            let Some(reading) = &mut one.reading else { continue };
            match guarded(&one.entry.name, reading.session.partitions()).await {
                Ok(partitions) => {
                    let mut names: Vec<_> = partitions.iter().map(|p| &p.name).collect();
                    names.sort();
                    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                        let what = "a source has two partitions of one name";
                        return Err(Error::adapter(what).on(pair[0]).on(&one.entry.name));
                    }
                    reading.partitions = partitions;
                    let consistency = match (reading.live, self.policy) {
                        (false, _) => StoreConsistency::Pinned,
                        (true, LivePolicy::HoldPause) => StoreConsistency::Held,
                        (true, _) => StoreConsistency::Fuzzy,
                    };
                    let store = one.entry.name.clone();
                    self.watch.tell(Event::Pinned { store, consistency });
                }
                Err(error) => {
                    notices.push(missing(&one.entry, error)?);
                    if let Some(reading) = one.reading.take() {
                        // It failed already: what it says at its end changes nothing.
                        let _ = guarded(&one.entry.name, reading.session.close()).await;
                    }
                }
            }
        }
        Ok(())
    }
}

// The notice for an optional store that does not answer; everything else is an error.
fn missing(entry: &Entry, error: Error) -> Result<(String, Notice)> {
    let faulty = matches!(
        error.kind(),
        ErrorKind::Cancelled
            | ErrorKind::Adapter
            | ErrorKind::InvalidInput
            | ErrorKind::Unsupported
    );
    if !entry.optional || faulty {
        return Err(error);
    }
    let notice = Notice {
        kind: NoticeKind::StoreMissing,
        collection: String::new(),
        subject: entry.name.clone(),
        detail: error.to_string(),
    };
    Ok((entry.name.clone(), notice))
}

/// The word for all stores together, from the words for each.
///
/// `one_pause`: all of them were fixed or copied within one pause that did not run out.
pub(super) fn overall(stores: &[StoreConsistency], one_pause: bool) -> Consistency {
    if stores.is_empty() || stores.contains(&StoreConsistency::Fuzzy) {
        Consistency::Fuzzy
    } else if stores.len() == 1 || one_pause {
        Consistency::Consistent
    } else {
        Consistency::PerStore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_consistent_is_used_only_where_it_is_true() {
        use StoreConsistency::{Fuzzy, Held, Pinned};
        for (stores, one_pause, expected) in [
            (&[Pinned][..], false, Consistency::Consistent),
            (&[Held], true, Consistency::Consistent),
            (&[Fuzzy], true, Consistency::Fuzzy),
            (&[Pinned, Pinned], false, Consistency::PerStore),
            (&[Pinned, Pinned], true, Consistency::Consistent),
            (&[Pinned, Held], true, Consistency::Consistent),
            (&[Pinned, Fuzzy], true, Consistency::Fuzzy),
            (&[], true, Consistency::Fuzzy),
        ] {
            assert_eq!(overall(stores, one_pause), expected, "{stores:?} {one_pause}");
        }
    }
}
