//! The test suite that every adapter of backup-kit runs, yours too.
//!
//! An adapter is right when a restore is exact or does not happen. The suite asks for that
//! in some forty cases: round trips with odd keys and hostile names, sessions that are
//! cancelled, dropped or taken up by another process, bodies that break, figures that are
//! compared with the kit's own. Cases are chosen by what the adapter
//! [declares](backup_core::Capabilities); what is left out, the report names.
//!
//! Write a [`Harness`] that makes an empty store, and run it from a test:
//!
//! ```
//! use backup_conformance::Harness;
//! use backup_core::{MemoryStore, Result, async_trait};
//!
//! struct Memory;
//!
//! #[async_trait(?Send)]
//! impl Harness for Memory {
//!     // What outlives a process: for a database, its folder.
//!     type Place = MemoryStore;
//!     type Store = MemoryStore;
//!
//!     async fn place(&self) -> Result<MemoryStore> {
//!         Ok(MemoryStore::new())
//!     }
//!
//!     async fn open(&self, place: &MemoryStore) -> Result<MemoryStore> {
//!         Ok(place.clone())
//!     }
//!
//!     async fn trace(&self, place: &MemoryStore) -> Result<Option<Vec<String>>> {
//!         Ok(Some(place.traces()))
//!     }
//! }
//!
//! // #[test]
//! fn conforms() {
//!     backup_conformance::run(&Memory);
//! }
//! # conforms();
//! ```
//!
//! That is enough to begin with. Then make it stricter: [`Harness::fill`] puts data into the
//! store without the adapter, [`Harness::dump`] reads it without the adapter, and
//! [`Harness::change`] writes while a session is open. [`Harness::holds`] says what the store
//! cannot hold, and [`Harness::block_on`] enters a runtime.

mod cases;
mod dataset;
mod harness;
mod kit;
mod reading;
mod report;
mod samples;

use std::{cell::RefCell, panic::AssertUnwindSafe, rc::Rc};

use futures::FutureExt;

pub use dataset::{Dataset, Item, MARK, Node, Row, Rows, Tree};
pub use harness::{Asked, Harness};
pub use report::{Case, Outcome, Report};

use kit::{Checked, Fault, Kit};

/// Runs the whole suite.
///
/// # Panics
/// When a case fails, with the whole report. Otherwise the report goes to standard error,
/// because it names the cases that were skipped.
pub fn run<H: Harness>(harness: &H) {
    let report = check(harness);
    assert!(report.failed().is_empty(), "the adapter does not conform\n{report}");
    #[expect(clippy::print_stderr, reason = "the caller is a test: there is nobody else to tell")]
    {
        eprintln!("{report}");
    }
}

/// Runs the whole suite and returns what it found.
#[must_use]
pub fn check<H: Harness>(harness: &H) -> Report {
    check_only(harness, |_| true)
}

/// The names of all cases.
#[must_use]
pub const fn cases() -> &'static [&'static str] {
    cases::NAMES
}

/// Runs the cases whose names `wanted` picks.
#[must_use]
pub fn check_only<H: Harness>(harness: &H, wanted: impl Fn(&str) -> bool) -> Report {
    let mut report = Report::default();
    for case in cases::all::<H>().into_iter().filter(|case| wanted(case.name)) {
        let found = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&found);
        harness.block_on(Box::pin(async move {
            let outcome = AssertUnwindSafe(one(harness, &case)).catch_unwind().await;
            *slot.borrow_mut() = Some(outcome.unwrap_or_else(|panic| Case {
                name: case.name,
                outcome: Outcome::Failed(format!("panicked: {}", message(&*panic))),
                notes: Vec::new(),
            }));
        }));
        report.cases.extend(found.take());
    }
    report
}

async fn one<H: Harness>(harness: &H, case: &cases::Known<H>) -> Case {
    let mut notes = Vec::new();
    let checked: Checked = async {
        let can = {
            // Gone before the case begins: a place may be a server.
            let place = harness.place().await?;
            backup_core::Adapter::capabilities(&harness.open(&place).await?)
        };
        let kit = Kit::new(harness, can);
        let checked = (case.run)(&kit).await;
        notes = kit.take_notes();
        checked
    }
    .await;
    let outcome = match checked {
        Ok(()) => Outcome::Passed,
        Err(Fault::Skip(why)) => Outcome::Skipped(why),
        Err(Fault::Fail(what)) => Outcome::Failed(what),
    };
    Case { name: case.name, outcome, notes }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
