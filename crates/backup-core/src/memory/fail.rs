//! Failures on demand, for tests of what stands above an adapter.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// A moment at which a [`MemoryStore`](super::MemoryStore) can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// [`Adapter::describe`](crate::Adapter::describe).
    Describe,
    /// [`Source::pin`](crate::Source::pin).
    Pin,
    /// [`SourceSession::partitions`](crate::SourceSession::partitions).
    Partitions,
    /// [`SourceSession::next`](crate::SourceSession::next).
    Next,
    /// Half-way through the body of a blob or file that `next` gave.
    Body,
    /// [`SourceSession::close`](crate::SourceSession::close).
    Close,
    /// [`Sink::prepare`](crate::Sink::prepare).
    Prepare,
    /// [`Sink::begin`](crate::Sink::begin).
    Begin,
    /// [`Sink::reattach`](crate::Sink::reattach).
    Reattach,
    /// [`SinkSession::existing`](crate::SinkSession::existing).
    Existing,
    /// [`SinkSession::write`](crate::SinkSession::write).
    Write,
    /// [`SinkSession::verify`](crate::SinkSession::verify).
    Verify,
    /// [`SinkSession::commit`](crate::SinkSession::commit), before the switch.
    Commit,
    /// `commit`, after the switch: done, but the caller gets an error.
    CommitDone,
    /// [`SinkSession::undo`](crate::SinkSession::undo), before the switch back.
    Undo,
    /// `undo`, after the switch back: done, but the caller gets an error.
    UndoDone,
    /// [`SinkSession::finish`](crate::SinkSession::finish).
    Finish,
    /// [`SinkSession::abort`](crate::SinkSession::abort).
    Abort,
}

/// Called before every step; what it returns, the step returns.
pub(super) type Hook = Arc<dyn Fn(Step) -> Result<()> + Send + Sync>;

/// One planned failure.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    // Calls to go; `None`: from now on, always.
    pub(super) countdown: Option<usize>,
    pub(super) kind: ErrorKind,
}

/// The failure that is due at `step`, if any.
pub(super) fn due(failures: &mut Vec<Failure>, step: Step) -> Result<()> {
    let mut hit = None;
    failures.retain_mut(|failure| {
        if failure.step != step {
            return true;
        }
        match &mut failure.countdown {
            None => hit = Some(failure.kind),
            Some(calls) => {
                *calls -= 1;
                if *calls == 0 {
                    hit = Some(failure.kind);
                    return false;
                }
            }
        }
        true
    });
    match hit {
        None => Ok(()),
        Some(kind) => {
            Err(Error::new(kind, "a failure that a test asked for").on(format!("{step:?}")))
        }
    }
}
