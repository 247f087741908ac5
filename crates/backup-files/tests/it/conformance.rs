//! The suite that every adapter runs, on two roots, exchanged at once and moved one by one.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::PathBuf,
};

use backup_conformance::{Dataset, Harness, Node};
use backup_core::async_trait;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use tempfile::TempDir;

use crate::*;

struct Folders {
    stepwise: bool,
}

const ROOTS: [&str; 2] = ["first", "second"];

#[async_trait(?Send)]
impl Harness for Folders {
    type Place = TempDir;
    type Store = FilesStore;

    async fn place(&self) -> Result<TempDir> {
        let dir = tempfile::tempdir()?;
        for root in ROOTS {
            fs::create_dir(dir.path().join(root))?;
        }
        Ok(dir)
    }

    async fn open(&self, place: &TempDir) -> Result<FilesStore> {
        let mut builder = FilesStore::builder();
        for root in ROOTS {
            builder = builder.root(root, place.path().join(root));
        }
        if self.stepwise { builder.switch_stepwise() } else { builder }.build()
    }

    async fn fill(&self, place: &TempDir, data: &Dataset) -> Result<()> {
        for tree in &data.trees {
            let path = |item: &backup_conformance::Item| -> PathBuf {
                place.path().join(&tree.root).join(OsStr::from_bytes(item.path.as_bytes()))
            };
            for item in &tree.items {
                match &item.node {
                    Node::File(bytes) => fs::write(path(item), bytes)?,
                    Node::Directory => fs::create_dir(path(item))?,
                    Node::Symlink(target) => symlink(OsStr::from_bytes(target), path(item))?,
                }
            }
            // From the inside out: a folder's time is changed by what is made in it.
            for item in tree.items.iter().rev() {
                if !matches!(item.node, Node::Symlink(_)) {
                    chmod(&path(item), item.mode);
                }
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                    last_modification: Timespec {
                        tv_sec: item.modified.0,
                        tv_nsec: item.modified.1.into(),
                    },
                };
                rustix::fs::utimensat(CWD, path(item), &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(std::io::Error::from)?;
            }
        }
        Ok(())
    }

    async fn change(&self, place: &TempDir) -> Result<()> {
        fs::write(place.path().join(ROOTS[0]).join("changed meanwhile"), "x")?;
        Ok(())
    }

    async fn dump(&self, place: &TempDir) -> Result<Option<Vec<String>>> {
        let all = ROOTS.iter().flat_map(|root| snapshot(&place.path().join(root)));
        Ok(Some(all.map(|entry| format!("{entry:?}")).collect()))
    }

    async fn trace(&self, place: &TempDir) -> Result<Option<Vec<String>>> {
        Ok(Some(names(place.path())))
    }

    fn roots(&self) -> Vec<String> {
        ROOTS.map(str::to_owned).to_vec()
    }
}

#[test]
fn conforms_with_an_exchange() {
    backup_conformance::run(&Folders { stepwise: false });
}

#[test]
fn conforms_entry_by_entry() {
    backup_conformance::run(&Folders { stepwise: true });
}
