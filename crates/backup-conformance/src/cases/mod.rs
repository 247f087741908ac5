//! The cases. Each is a function that takes a [`Kit`] and makes its own places.

mod content;
mod faults;
mod merge;
mod reading;
mod restore;
mod resume;

use std::pin::Pin;

use crate::{
    harness::Harness,
    kit::{Checked, Kit},
};

type Run<H> = for<'k, 'h> fn(&'k Kit<'h, H>) -> Pin<Box<dyn Future<Output = Checked> + 'k>>;

/// A case and its name.
pub(crate) struct Known<H: Harness> {
    pub(crate) name: &'static str,
    pub(crate) run: Run<H>,
}

macro_rules! cases {
    ($($module:ident { $($name:ident),+ $(,)? })+) => {
        pub(crate) const NAMES: &[&str] = &[$($(stringify!($name)),+),+];

        pub(crate) fn all<H: Harness>() -> Vec<Known<H>> {
            vec![$($(Known {
                name: stringify!($name),
                run: |kit| Box::pin($module::$name(kit)),
            }),+),+]
        }
    };
}

cases! {
    reading {
        source_keeps_its_contract,
        everything_is_read,
        reading_is_repeatable,
        description_agrees,
        selection,
        unknown_selection,
        pinned_moment,
        close_leaves_no_trace,
        dropped_session_leaves_the_store_usable,
        two_sessions_at_once,
        cancelled_reading,
    }
    content {
        empty_store,
        empty_collection,
        odd_keys,
        odd_values,
        odd_fields,
        hostile_names,
        twin_names,
        long_record,
        ten_thousand_records,
        vectors,
        elements,
        odd_files,
    }
    restore {
        round_trip,
        figures_are_taken_anew,
        lost_parts_are_seen,
        replace_removes_what_was_there,
        live_is_unchanged_until_commit,
        prepare_touches_nothing,
        parts_written_at_once,
        commit_twice,
        undo,
        undo_twice,
        finish_twice,
        existing_without_merge,
    }
    merge {
        merge,
        existing_of_nothing,
        aborted_merge,
        merge_by_many,
        changed_since_it_was_read,
        entry_changed_since_it_was_read,
    }
    faults {
        abort_leaves_no_trace,
        abort_twice,
        cancelled_restore,
        broken_body,
        wrong_length,
        dropped_write,
        nonsense_schema,
        records_before_schema,
        entries_stay_inside,
        another_kind,
        nonsense_token,
    }
    resume {
        reattach_finds_every_state,
        half_staged_is_never_taken_for_whole,
        verified_can_be_committed,
        staged_can_be_aborted,
        committed_can_be_undone,
        committed_can_be_finished,
        two_restores_at_once,
    }
}
