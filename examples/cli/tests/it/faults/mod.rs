//! System calls that fail, a process that is killed, a disk that is full: the tool as it is
//! built, with two stores, a catalog and strace.
//!
//! strace counts calls for each thread of the tool apart, so the Nth call is struck in every
//! thread that comes so far. With `BACKUP_KIT_SWEEP=full` every N is tried; without, some of
//! the long rows are thinned out. `--nocapture` shows how many points were struck.

mod failures;
mod full;
mod kills;
mod order;
mod scene;
mod strace;
mod sweep;
