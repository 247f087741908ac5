//! Adapters that are wrong in one way each, and the cases that must find it.

mod sink;
mod source;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use backup_conformance::{Dataset, Harness, Outcome, cases, check, check_only, run};
use backup_core::{Adapter, Capabilities, Description, MemoryStore, Result, async_trait};

use crate::memory::fill;

/// What is wrong with an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: the wrapper itself does no harm.
    Nothing,
    DropsLastRecord,
    CountsWrong,
    GivesSchemaLast,
    GivesEntriesBackwards,
    GivesRecordTwice,
    WritesFloatsItsWay,
    ChangesItsMind,
    DescribesMore,
    ReadsEverything,
    SeesLaterChanges,
    LeavesSnapshot,
    StaysLocked,
    ReadsOnWhenCancelled,
    LosesVectors,
    LosesElements,
    RoundsIntegers,
    SkipsReservedFields,
    QuotesBadly,
    CutsLongText,
    StopsAtFiveThousand,
    SkipsEmptyCollections,
    SkipsNamesThatAreNotText,
    MakesOneBatch,
    KeepsOldWhenEmpty,
    FoldsCase,
    LosesSchemas,
    CopiesExpected,
    AddsInsteadOfReplacing,
    CommitsOnVerify,
    PrepareMakesFolder,
    NeedsOrder,
    SecondCommitForgetsOld,
    UndoDoesNothing,
    SecondUndoEmpties,
    SecondFinishFails,
    FinishLeavesOld,
    ReplacesInsteadOfMerging,
    AnswersExisting,
    FindsNothingExisting,
    WantsCollections,
    ForgetsAnswers,
    SeesAnyChange,
    TalliesTheWhole,
    AbortLeavesStaging,
    SecondAbortFails,
    WritesOnWhenCancelled,
    TakesBrokenBodies,
    TakesAnyLength,
    LeaksDroppedWrites,
    TrustsSchemas,
    TakesRecordsWithoutSchema,
    FollowsLinks,
    TakesAnyKind,
    TakesAnyToken,
    ForgetsRestores,
    StartsAgain,
    CannotAbortLater,
    CannotCommitLater,
    SharesStaging,
}

use Fault as F;

/// Every fault, and the cases that must fail by it; others may.
const CAUGHT: &[(Fault, &[&str])] = &[
    (F::DropsLastRecord, &["everything_is_read"]),
    (F::CountsWrong, &["source_keeps_its_contract"]),
    (F::GivesSchemaLast, &["source_keeps_its_contract"]),
    (F::GivesEntriesBackwards, &["source_keeps_its_contract"]),
    (F::GivesRecordTwice, &["source_keeps_its_contract"]),
    (F::WritesFloatsItsWay, &["odd_values"]),
    (F::ChangesItsMind, &["reading_is_repeatable"]),
    (F::DescribesMore, &["description_agrees"]),
    (F::ReadsEverything, &["selection", "unknown_selection"]),
    (F::SeesLaterChanges, &["pinned_moment"]),
    (F::LeavesSnapshot, &["close_leaves_no_trace"]),
    (F::StaysLocked, &["dropped_session_leaves_the_store_usable", "two_sessions_at_once"]),
    (F::ReadsOnWhenCancelled, &["cancelled_reading"]),
    (F::LosesVectors, &["vectors"]),
    (F::LosesElements, &["elements"]),
    (F::RoundsIntegers, &["odd_keys", "odd_values"]),
    (F::SkipsReservedFields, &["odd_fields"]),
    (F::QuotesBadly, &["hostile_names"]),
    (F::CutsLongText, &["long_record"]),
    (F::StopsAtFiveThousand, &["ten_thousand_records"]),
    (F::SkipsEmptyCollections, &["empty_collection"]),
    (F::SkipsNamesThatAreNotText, &["odd_files"]),
    (F::MakesOneBatch, &["ten_thousand_records"]),
    (F::KeepsOldWhenEmpty, &["empty_store"]),
    (F::FoldsCase, &["twin_names"]),
    (F::LosesSchemas, &["round_trip"]),
    (F::CopiesExpected, &["figures_are_taken_anew", "lost_parts_are_seen"]),
    (F::AddsInsteadOfReplacing, &["replace_removes_what_was_there"]),
    (F::CommitsOnVerify, &["live_is_unchanged_until_commit"]),
    (F::PrepareMakesFolder, &["prepare_touches_nothing"]),
    (F::NeedsOrder, &["parts_written_at_once"]),
    (F::SecondCommitForgetsOld, &["commit_twice"]),
    (F::UndoDoesNothing, &["undo", "merge", "committed_can_be_undone"]),
    (F::SecondUndoEmpties, &["undo_twice"]),
    (F::SecondFinishFails, &["finish_twice"]),
    (F::FinishLeavesOld, &["finish_twice", "round_trip"]),
    (F::ReplacesInsteadOfMerging, &["merge"]),
    (F::FindsNothingExisting, &["merge"]),
    (F::TalliesTheWhole, &["merge", "merge_by_many"]),
    (F::WantsCollections, &["existing_of_nothing"]),
    (F::ForgetsAnswers, &["changed_since_it_was_read", "entry_changed_since_it_was_read"]),
    (F::SeesAnyChange, &["changed_since_it_was_read", "entry_changed_since_it_was_read"]),
    (F::AnswersExisting, &["existing_without_merge"]),
    (F::AbortLeavesStaging, &["abort_leaves_no_trace", "aborted_merge"]),
    (F::SecondAbortFails, &["abort_twice"]),
    (F::WritesOnWhenCancelled, &["cancelled_restore"]),
    (F::TakesBrokenBodies, &["broken_body"]),
    (F::TakesAnyLength, &["wrong_length"]),
    (F::LeaksDroppedWrites, &["dropped_write"]),
    (F::TrustsSchemas, &["nonsense_schema"]),
    (F::TakesRecordsWithoutSchema, &["records_before_schema"]),
    (F::FollowsLinks, &["entries_stay_inside"]),
    (F::TakesAnyKind, &["another_kind"]),
    (F::TakesAnyToken, &["nonsense_token"]),
    (F::ForgetsRestores, &["reattach_finds_every_state"]),
    (F::StartsAgain, &["half_staged_is_never_taken_for_whole"]),
    (F::CannotAbortLater, &["staged_can_be_aborted"]),
    (
        F::CannotCommitLater,
        &["verified_can_be_committed", "committed_can_be_finished", "merge_by_many"],
    ),
    (F::SharesStaging, &["two_restores_at_once"]),
];

#[test]
fn every_broken_adapter_fails_where_it_should() {
    for (fault, caught_by) in CAUGHT {
        let report = check_only(&Broken(*fault), |name| caught_by.contains(&name));
        assert_eq!(report.cases().len(), caught_by.len(), "{fault:?}: a case is misspelt");
        for case in report.cases() {
            assert!(matches!(case.outcome, Outcome::Failed(_)), "{fault:?} passes {case:?}");
        }
    }
}

/// A case that nothing fails is no case.
#[test]
fn every_case_is_failed_by_some_broken_adapter() {
    let caught: BTreeSet<_> = CAUGHT.iter().flat_map(|(_, cases)| *cases).copied().collect();
    assert_eq!(caught, cases().iter().copied().collect());
}

#[test]
fn a_failure_panics_with_the_whole_report() {
    let ran = std::panic::catch_unwind(|| run(&Broken(F::UndoDoesNothing)));
    let message = *ran.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("FAILED   undo: undo did not bring back"), "{message}");
    assert!(message.contains("passed   round_trip"), "{message}");
}

#[test]
fn the_wrapper_itself_does_no_harm() {
    let report = check(&Broken(F::Nothing));
    assert_eq!(report.failed(), [""; 0], "{report}");
}

/// A harness for a store with a fault.
struct Broken(Fault);

/// What outlives a session of a faulty adapter.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: MemoryStore,
    pub(crate) own: Arc<Mutex<Own>>,
}

#[derive(Default)]
pub(crate) struct Own {
    pub(crate) leftovers: Vec<String>,
    pub(crate) sessions: usize,
    pub(crate) locked: bool,
    pub(crate) commits: usize,
    pub(crate) undos: usize,
    pub(crate) finishes: usize,
    pub(crate) aborts: usize,
}

/// The adapter with a fault.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) place: Place,
    pub(crate) fault: Fault,
}

impl Store {
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    pub(crate) fn own<T>(&self, f: impl FnOnce(&mut Own) -> T) -> T {
        f(&mut self.place.own.lock().unwrap())
    }

    pub(crate) fn leave(&self, what: &str) {
        self.own(|own| own.leftovers.push(what.to_owned()));
    }
}

#[async_trait]
impl Adapter for Store {
    fn kind(&self) -> &'static str {
        "broken"
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = self.place.store.capabilities();
        can.pins = true;
        can.merge = !self.has(F::AnswersExisting);
        can
    }

    async fn describe(&self) -> Result<Description> {
        let mut description = self.place.store.describe().await?;
        if self.has(F::DescribesMore)
            && let Some(records) =
                description.collections.first_mut().and_then(|one| one.records.as_mut())
        {
            *records += 1;
        }
        Ok(description)
    }
}

#[async_trait(?Send)]
impl Harness for Broken {
    type Place = Place;
    type Store = Store;

    async fn place(&self) -> Result<Place> {
        let records = if self.0 == F::MakesOneBatch { 10_000 } else { 10 };
        let store = MemoryStore::new().with_kind("broken").with_batch_records(records);
        store.pinnable(self.0 != F::SeesLaterChanges);
        Ok(Place { store, own: Arc::default() })
    }

    async fn open(&self, place: &Place) -> Result<Store> {
        Ok(Store { place: place.clone(), fault: self.0 })
    }

    async fn fill(&self, place: &Place, data: &Dataset) -> Result<()> {
        fill(&place.store, data)
    }

    async fn change(&self, place: &Place) -> Result<()> {
        place.store.insert("notes", 1, serde_json::json!("changed"))
    }

    async fn dump(&self, place: &Place) -> Result<Option<Vec<String>>> {
        Ok(Some(vec![format!("{:?}", place.store.snapshot())]))
    }

    async fn trace(&self, place: &Place) -> Result<Option<Vec<String>>> {
        let mut trace = place.store.traces();
        trace.extend(place.own.lock().unwrap().leftovers.clone());
        Ok(Some(trace))
    }
}
