//! Folder trees for backup-kit: uploads, caches, models, whatever an application keeps in
//! files.
//!
//! ```
//! use backup_core::{Adapter, PinRequest, Pinned, Source};
//! use backup_files::FilesStore;
//!
//! # futures::executor::block_on(async {
//! # let dir = tempfile::tempdir()?;
//! # let uploads = dir.path();
//! let store = FilesStore::builder().root("uploads", uploads).exclude("*.tmp").build()?;
//! let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await? else {
//!     unreachable!("a folder cannot be pinned")
//! };
//! for partition in session.partitions().await? {
//!     while let Some(part) = session.next(&partition).await? {
//!         println!("{part:?}");
//!     }
//! }
//! let changed_meanwhile = session.close().await?.changed;
//! # Ok::<(), backup_core::Error>(())
//! # }).unwrap();
//! ```
//!
//! # What is carried
//! Files, folders (empty ones too) and symbolic links, which are stored as they stand and
//! never followed; of each its name in whatever bytes, its permission bits (`0o777`) and its
//! modification time in nanoseconds. Of the root itself, its permission bits.
//!
//! Not carried, and said so in a [notice](backup_core::Notice):
//!
//! | what | notice |
//! |---|---|
//! | owner, group, access times | none: a restore gives files to whoever runs it |
//! | setuid, setgid, sticky; extended attributes and ACLs; holes; that two names are one file | `Remark`, once a root |
//! | pipes, sockets, devices; paths above 4096 bytes | `Unsupported` |
//! | files that could not be read, or went away | `Unreadable`, `Vanished` |
//! | files of other stores and of the backup itself | `LeftOut` |
//! | other databases in use, and files that this process has open | `Unsupported` |
//!
//! A folder cannot be pinned. A file that changes while it is read is read again, up to three
//! times if it is at most 1 MiB, or else reported as `Changed`. `<name>.wal` beside `<name>`
//! is taken as one group with it, unchanged through both or read again. A file `CURRENT` is
//! compared before and after the folders beside it are read. At the end every entry's times
//! are looked at again, so that the summary knows whether anything changed at all.
//!
//! A restore replaces a root as a whole: the new tree is staged in a hidden folder beside it
//! and the two are exchanged in one step. Where that cannot be (a mount point, a root that
//! holds files of other stores, a file system without the call), entries are moved out and in
//! one by one, `CURRENT` first out and last in, noted on the disk step by step. What the
//! host excludes from backups is then gone with the old tree; plans say so.
//!
//! A restore that merges puts entries among those that are there, one by one, by the rule for
//! conflicts; everything else in the root stays as it is. Each replaces what was there by an
//! exchange of names, noted on the disk, and all of it can be taken back. A file that was changed
//! after it was compared with the archive's is not written over: the restore is taken back.
//!
//! # Limits
//! * Unix only: on other systems this crate is empty.
//! * The names of one folder are held in memory, and of all folders above it: about 30 bytes
//!   a name. Everything else is streamed.
//! * A change is seen by a file's times and length. A writer that sets the times back is not.
//! * A file system that keeps no permissions or no nanoseconds is refused at restore, because
//!   nothing could be proven there.
//! * Where the system does not tell which files a process has open (`/proc/self/fd`,
//!   `/dev/fd`), they cannot be left out; a remark says so.
//!
//! # Security
//! Neither backup nor restore leaves its roots: every name is opened below the open folder
//! that holds it, without following links, and a folder that is replaced meanwhile is noticed.
//! A restore refuses entries out of order or twice, entries below a link, and names that the
//! file system takes for the same; it makes no devices and sets no special bits. Links are
//! restored as they stand and may point anywhere: who reads through them decides.
//! The staging folder is open to its owner alone.
#![cfg(unix)]

mod adapter;
mod config;
mod exclude;
mod guard;
mod live;
mod merge;
mod mounts;
mod notes;
mod place;
mod prepare;
mod read;
mod reader;
mod remove;
mod sink;
mod source;
mod stage;
mod switch;
mod sys;
mod tally;
mod trail;
mod walk;

pub use config::{FilesBuilder, FilesStore};
