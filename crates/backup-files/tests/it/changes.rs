//! Files and folders that change while they are read. FAULTS 34, 35.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::*;

const LARGE: usize = 4 << 20;

/// A backup of one large file and one small one after it, with something done to the large
/// one after its first piece.
fn meddled(meddle: impl Fn(&Path)) -> (Taken, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    let large = root.join("large");
    fs::write(&large, vec![b'x'; LARGE]).unwrap();
    fs::write(root.join("small"), "after it").unwrap();
    let store = FilesStore::open(&root).unwrap();
    let mut body = Vec::new();
    let taken = block_on(async {
        let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await.unwrap() else {
            panic!("a folder cannot be pinned");
        };
        let partition = session.partitions().await.unwrap().remove(0);
        let mut taken = Taken::default();
        while let Some(part) = session.next(&partition).await.unwrap() {
            match part {
                Part::Entry(FileEntry {
                    kind: EntryKind::File { len, body: mut pieces }, ..
                }) if len == LARGE as u64 => {
                    let mut first = true;
                    while let Some(piece) = pieces.next().await {
                        body.extend_from_slice(&piece.unwrap());
                        if std::mem::take(&mut first) {
                            meddle(&large);
                        }
                    }
                }
                Part::Entry(entry) => taken.entries.push(own(entry).await.unwrap()),
                Part::Notice(notice) => taken.notices.push(notice),
                _ => {}
            }
        }
        taken.summary = session.close().await.unwrap();
        taken
    });
    assert_eq!(taken.paths(), ["small"], "the walk goes on");
    assert_eq!(taken.summary.changed, Some(true));
    (taken, body)
}

#[test]
fn a_large_file_that_is_written_to_is_reported() {
    let (taken, body) = meddled(|path| {
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::End(-5)).unwrap();
        file.write_all(b"later").unwrap();
    });
    assert_eq!(body.len(), LARGE);
    assert_eq!(taken.kinds(), [(NoticeKind::Changed, "large")]);
}

#[test]
fn a_large_file_that_grows_or_shrinks_has_a_body_of_another_length() {
    // The engine sees the length and reports it: twice would be once too often.
    let (taken, body) = meddled(|path| {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(&[b'y'; LARGE]).unwrap();
    });
    assert_eq!((body.len(), taken.notices.len()), (LARGE + 1, 0));
    let (taken, body) = meddled(|path| {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(10).unwrap();
    });
    assert!(body.len() < LARGE && body.len() >= 10, "{}", body.len());
    assert_eq!(taken.notices.len(), 0);
}

#[test]
fn a_large_file_that_is_removed_or_replaced_is_carried_and_reported() {
    let (taken, body) = meddled(|path| fs::remove_file(path).unwrap());
    assert!(body == vec![b'x'; LARGE]);
    assert_eq!(taken.kinds(), [(NoticeKind::Vanished, "large")]);
    let (taken, body) = meddled(|path| {
        fs::remove_file(path).unwrap();
        symlink("/etc/passwd", path).unwrap();
    });
    assert!(body == vec![b'x'; LARGE]);
    assert_eq!(taken.kinds(), [(NoticeKind::Changed, "large")]);
}

#[test]
fn a_body_that_is_not_read_to_its_end_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), vec![1; LARGE]).unwrap();
    fs::write(dir.path().join("next"), "next").unwrap();
    let store = FilesStore::open(dir.path()).unwrap();
    let taken = block_on(async {
        let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await.unwrap() else {
            panic!("a folder cannot be pinned");
        };
        let partition = session.partitions().await.unwrap().remove(0);
        let mut seen = Vec::new();
        while let Some(part) = session.next(&partition).await.unwrap() {
            if let Part::Entry(FileEntry { path, kind: EntryKind::File { mut body, .. }, .. }) =
                part
            {
                body.next().await.unwrap().unwrap();
                seen.push(path.to_string());
            }
        }
        seen
    });
    assert_eq!(taken, ["large", "next"]);
}

/// Keeps one thread busy with a file or folder while backups are taken.
fn stormy(root: &Path, work: impl Fn(u32) + Sync, mut check: impl FnMut(Taken)) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..).take_while(|_| !done.load(Ordering::Relaxed)).for_each(&work));
        let _stop = Stop(&done);
        for _ in 0..5 {
            check(take(&FilesStore::open(root).unwrap()).unwrap());
        }
    });
}

#[test]
fn files_that_are_replaced_by_renames_are_always_whole() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("state"), [b'a'; 9000]).unwrap();
    stormy(
        &root,
        |turn| {
            let next = dir.path().join("next");
            fs::write(&next, vec![b'a' + (turn % 26) as u8; 9000]).unwrap();
            fs::rename(&next, root.join("state")).unwrap();
        },
        |taken| {
            for entry in &taken.entries {
                let Kind::File(bytes) = &entry.kind else { panic!("{entry:?}") };
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "two contents in one");
            }
        },
    );
}

#[test]
fn folders_that_come_and_go_do_not_end_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir_all(root.join("stays")).unwrap();
    fs::write(root.join("stays/f"), "content").unwrap();
    stormy(
        &root,
        |turn| {
            let folder = root.join(format!("goes{}", turn % 7));
            fs::create_dir_all(folder.join("a/b")).unwrap();
            fs::write(folder.join("a/b/f"), "x").unwrap();
            fs::rename(&folder, root.join("moved")).unwrap();
            symlink("stays", &folder).unwrap();
            fs::remove_file(&folder).unwrap();
            fs::remove_dir_all(root.join("moved")).unwrap();
        },
        |taken| {
            assert!(taken.paths().contains(&"stays/f".to_owned()));
            assert!(taken.entries.is_sorted_by(|a, b| a.path < b.path));
        },
    );
}

#[test]
fn a_folder_that_is_moved_out_from_under_the_walk_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    // Deep enough that the folders above are closed and found again through `..`.
    let deep: PathBuf = root.join("d/".repeat(60));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), vec![0; LARGE]).unwrap();
    fs::write(root.join("last"), "last").unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let store = FilesStore::open(&root).unwrap();
    let level = |depth: usize| root.join("d/".repeat(depth));
    let taken = take_with(&store, &PinRequest::new(), |entry| {
        if entry.path.to_string().ends_with("file") {
            // Now `..` of the inner one is outside, and the way from the root is cut.
            fs::rename(level(21), outside.join("inner")).unwrap();
            fs::rename(level(15), outside.join("outer")).unwrap();
        }
    })
    .unwrap();
    assert!(!taken.paths().iter().any(|path| path.contains("secret")));
    assert!(taken.paths().contains(&"last".to_owned()), "what can be reached is read");
    assert!(taken.notices.iter().all(|notice| notice.kind == NoticeKind::Changed));
    assert!(taken.is_partial());
}

#[test]
fn what_this_user_may_not_read_is_reported() {
    if rustix::process::geteuid().is_root() {
        // The superuser may read everything: this very test runs again as somebody else.
        let exe = std::env::current_exe().unwrap();
        let shared = tempfile::tempdir().unwrap();
        chmod(shared.path(), 0o755);
        let copy = shared.path().join("it");
        fs::copy(exe, &copy).unwrap();
        let ran = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .args(["--exact", "changes::what_this_user_may_not_read_is_reported"])
            .env("TMPDIR", "/tmp")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{ran:?}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir_all(root.join("closed")).unwrap();
    fs::write(root.join("closed/inside"), "").unwrap();
    fs::write(root.join("secret"), "").unwrap();
    fs::write(root.join("open"), "").unwrap();
    chmod(&root.join("closed"), 0o000);
    chmod(&root.join("secret"), 0o000);
    let taken = take(&FilesStore::open(&root).unwrap()).unwrap();
    chmod(&root.join("closed"), 0o700);
    assert_eq!(taken.paths(), ["closed", "open"]);
    assert_eq!(
        taken.kinds(),
        [(NoticeKind::Unreadable, "closed"), (NoticeKind::Unreadable, "secret")]
    );
    assert!(taken.is_partial());
}

#[test]
fn what_is_no_file_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    let handle = fs::File::open(&root).unwrap();
    rustix::fs::mkfifoat(&handle, "pipe", rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let taken = take(&FilesStore::open(&root).unwrap()).unwrap();
    drop(socket);
    assert_eq!(taken.paths().len(), 0);
    assert_eq!(
        taken.kinds(),
        [(NoticeKind::Unsupported, "pipe"), (NoticeKind::Unsupported, "socket")]
    );
}

#[test]
fn a_quick_look_tells_what_changed_after_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir_all(root.join("a")).unwrap();
    fs::write(root.join("a/early"), "").unwrap();
    fs::write(root.join("z"), vec![0; LARGE]).unwrap();
    let store = FilesStore::open(&root).unwrap();
    let changed = |what: &dyn Fn()| {
        let taken = take_with(&store, &PinRequest::new(), |entry| {
            if entry.path.as_bytes() == b"z" {
                what();
            }
        });
        let taken = taken.unwrap();
        assert!(!taken.is_partial());
        taken.summary.changed
    };
    assert_eq!(changed(&|| ()), Some(false));
    assert_eq!(changed(&|| fs::write(root.join("a/early"), "x").unwrap()), Some(true));
    assert_eq!(changed(&|| fs::write(root.join("a/new"), "").unwrap()), Some(true));
    assert_eq!(changed(&|| fs::remove_file(root.join("a/new")).unwrap()), Some(true));
    assert_eq!(changed(&|| ()), Some(false));
}

#[test]
fn a_pointer_that_is_turned_meanwhile_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir_all(root.join("store/v1")).unwrap();
    fs::write(root.join("store/v1/data"), vec![1; LARGE]).unwrap();
    fs::write(root.join("store/CURRENT"), "v1\n").unwrap();
    let store = FilesStore::open(&root).unwrap();
    assert_eq!(take(&store).unwrap().notices, []);
    let taken = take_with(&store, &PinRequest::new(), |entry| {
        if entry.path.as_bytes().ends_with(b"data") {
            fs::write(root.join("store/next"), "v2\n").unwrap();
            fs::rename(root.join("store/next"), root.join("store/CURRENT")).unwrap();
        }
    })
    .unwrap();
    assert_eq!(taken.kinds(), [(NoticeKind::Changed, "store/CURRENT")]);
}

#[test]
fn a_database_and_its_log_are_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    // In between stands another name, and both are larger than what is read at once.
    let (base, log) = (root.join("graph.duckdb"), root.join("graph.duckdb.wal"));
    fs::write(root.join("graph.duckdb.bak"), vec![0; LARGE]).unwrap();
    fs::write(&base, vec![1; LARGE]).unwrap();
    fs::write(&log, vec![1; 100_000]).unwrap();
    let store = FilesStore::open(&root).unwrap();
    let taken = take_with(&store, &PinRequest::new(), |entry| {
        // A checkpoint and new work, between the two in the order of the backup.
        if entry.path.as_bytes().ends_with(b".bak") {
            fs::write(&base, vec![2; LARGE]).unwrap();
            fs::write(&log, vec![2; 100_000]).unwrap();
        }
    })
    .unwrap();
    assert_eq!(taken.paths(), ["graph.duckdb", "graph.duckdb.bak", "graph.duckdb.wal"]);
    assert!(taken.entries[0].kind == Kind::File(vec![1; LARGE]));
    assert!(taken.entries[2].kind == Kind::File(vec![1; 100_000]));
    assert_eq!((taken.notices.len(), taken.summary.changed), (0, Some(true)));
}
