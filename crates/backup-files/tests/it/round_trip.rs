//! What is carried comes back as it was.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    time::{Duration, SystemTime},
};

use rustix::fs::{Mode, OFlags};

use crate::*;

#[test]
fn a_tree_comes_back_with_modes_times_links_and_empty_folders() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("uploads");
    sample(&root);
    let past = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    fs::File::open(root.join("docs/deep")).unwrap().set_modified(past).unwrap();
    chmod(&root.join("docs/deep"), 0o555);
    let before = snapshot(&root);
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    assert_eq!(
        taken.paths(),
        [
            "docs",
            "docs/a.txt",
            "docs/deep",
            "docs/deep/b",
            "docs/deep/er",
            "docs.txt",
            "empty",
            "link",
            "none"
        ]
    );
    assert!(taken.entries.is_sorted_by(|a, b| a.path < b.path));
    assert_eq!(taken.ends[0].count, Some(9));
    assert_eq!((taken.notices.len(), taken.summary.changed), (0, Some(false)));

    chmod(&root.join("docs/deep"), 0o755);
    fs::remove_dir_all(root.join("docs")).unwrap();
    fs::write(root.join("later"), "must go").unwrap();
    restore(&store, &taken).unwrap();
    assert_eq!(snapshot(&root), before);
    assert_eq!(names(dir.path()), ["uploads"]);
}

#[test]
fn a_root_that_is_not_there_is_missing_at_backup_and_made_at_restore() {
    let dir = tempfile::tempdir().unwrap();
    sample(&dir.path().join("from"));
    chmod(&dir.path().join("from"), 0o750);
    let taken = take(&FilesStore::open(dir.path().join("from")).unwrap()).unwrap();
    let path = dir.path().join("not/yet/there");
    let store = FilesStore::open(&path).unwrap();
    let error = take(&store).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::NotFound);

    let (_, session) = stage(&store, &taken, &taken.plan("r0")).unwrap();
    block_on(session.abort()).unwrap();
    assert_eq!(names(dir.path()), ["from"], "an abort leaves no trace");

    let (_, session) = stage(&store, &taken, &taken.plan("r0")).unwrap();
    block_on(session.commit()).unwrap();
    assert!(path.join("docs").exists());
    block_on(session.undo()).unwrap();
    block_on(session.finish()).unwrap();
    assert_eq!(names(dir.path()), ["from"], "an undo neither");

    restore(&store, &taken).unwrap();
    assert_eq!(snapshot(&path), snapshot(&dir.path().join("from")));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o750);
}

#[test]
fn an_empty_root_comes_back_empty() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    assert_eq!((taken.entries.len(), taken.ends[0].count), (0, Some(0)));
    fs::write(root.join("later"), "must go").unwrap();
    restore(&store, &taken).unwrap();
    assert_eq!(names(&root), Vec::<String>::new());
}

// FAULTS 36
#[test]
fn names_of_any_bytes_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    let long = vec![b'x'; 255];
    let odd: [&[u8]; 12] = [
        b"new\nline",
        b"\xff\xfe not text",
        &long,
        b"CON",
        b"nul.txt",
        b"back\\slash",
        b"C:",
        b" ",
        b"...",
        b"-rf",
        b"\x01\x7f",
        "\u{e9} e\u{301}".as_bytes(),
    ];
    fs::create_dir(&root).unwrap();
    for name in odd {
        let folder = root.join(OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(OsStr::from_bytes(name)), name).unwrap();
        symlink(OsStr::from_bytes(name), folder.join("link")).unwrap();
    }
    let before = snapshot(&root);
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    assert_eq!((taken.entries.len(), taken.notices.len()), (36, 0));
    fs::remove_dir_all(&root).unwrap();
    restore(&store, &taken).unwrap();
    assert_eq!(snapshot(&root), before);
}

#[test]
fn a_path_of_almost_4096_bytes_comes_back_and_a_longer_one_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    // 2 048 folders: more than a process may hold open, and longer than the system takes at
    // once.
    let mut folder = fs::File::open(&root).unwrap();
    for _ in 0..2048 {
        rustix::fs::mkdirat(&folder, "a", Mode::from_raw_mode(0o755)).unwrap();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        folder = rustix::fs::openat(&folder, "a", flags, Mode::empty()).unwrap().into();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    drop(rustix::fs::openat(&folder, "f", flags, Mode::from_raw_mode(0o644)).unwrap());
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    assert_eq!(taken.entries.len(), 2048);
    assert_eq!(taken.entries[2047].path.as_bytes().len(), 4095);
    assert_eq!(taken.notices[0].kind, NoticeKind::Unsupported);
    restore(&store, &taken).unwrap();
    let again = take(&store).unwrap();
    assert_eq!(again.content(), taken.content());
    assert!(again.notices.is_empty(), "the file that was too deep is gone");
    restore(&store, &Taken { entries: Vec::new(), ..taken }).unwrap();
    assert_eq!(names(&root), Vec::<String>::new());
}

#[test]
fn a_large_file_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    let body: Vec<u8> = (0..(16_u32 << 20) + 123).map(|i| (i ^ (i >> 9)) as u8).collect();
    fs::write(root.join("large"), &body).unwrap();
    fs::write(root.join("next"), "small").unwrap();
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    assert_eq!((taken.notices.len(), taken.paths().len()), (0, 2));
    assert!(taken.entries[0].kind == Kind::File(body.clone()));
    fs::remove_file(root.join("large")).unwrap();
    restore(&store, &taken).unwrap();
    assert!(fs::read(root.join("large")).unwrap() == body);
}

#[test]
fn twenty_thousand_files_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    for folder in 0..100 {
        let folder = root.join(format!("{folder:03}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..200 {
            fs::write(folder.join(format!("{file}.txt")), format!("{file}")).unwrap();
        }
    }
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    assert_eq!(taken.entries.len(), 20_100);
    let before = snapshot(&root);
    restore(&store, &taken).unwrap();
    assert_eq!(snapshot(&root), before);
}

// FAULTS 37
#[test]
fn what_is_not_carried_is_listed_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir_all(root.join("loop")).unwrap();
    fs::write(root.join("a"), "one content").unwrap();
    fs::hard_link(root.join("a"), root.join("b")).unwrap();
    fs::hard_link(root.join("a"), root.join("c")).unwrap();
    fs::File::create(root.join("sparse")).unwrap().set_len(1 << 20).unwrap();
    symlink("..", root.join("loop/up")).unwrap();
    symlink("self", root.join("self")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    fs::write(root.join("special"), "").unwrap();
    chmod(&root.join("special"), 0o4755);
    let attribute = fs::File::open(root.join("a")).unwrap();
    rustix::fs::fsetxattr(&attribute, "user.x", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    drop(attribute);
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    let mut remarks: Vec<_> = taken.notices.iter().map(|n| n.detail.as_str()).collect();
    remarks.sort_unstable();
    assert_eq!(
        remarks,
        [
            "extended attributes and access control lists are not kept",
            "hard links are kept as files of their own",
            "holes in sparse files are kept as zeros",
            "setuid, setgid and sticky bits are not kept",
        ]
    );
    assert!(!taken.is_partial());
    fs::remove_dir_all(&root).unwrap();
    restore(&store, &taken).unwrap();
    assert_eq!(fs::read(root.join("c")).unwrap(), b"one content");
    assert_eq!(fs::metadata(root.join("a")).unwrap().nlink(), 1);
    assert_eq!(fs::read_link(root.join("loop/up")).unwrap(), Path::new(".."));
    assert_eq!(fs::read(root.join("sparse")).unwrap().len(), 1 << 20);
    assert_eq!(fs::metadata(root.join("special")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn several_roots_are_collections_and_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join(name), name).unwrap();
    }
    let store = FilesStore::builder()
        .root("first", dir.path().join("one"))
        .root("second", dir.path().join("two"))
        .build()
        .unwrap();
    let taken = take(&store).unwrap();
    assert_eq!(taken.paths(), ["one", "two"]);
    fs::write(dir.path().join("one/later"), "").unwrap();
    fs::write(dir.path().join("two/later"), "").unwrap();
    let mut request = PinRequest::new();
    request.collections.push("second".into());
    let second = take_with(&store, &request, |_| ()).unwrap();
    assert_eq!(second.paths(), ["later", "two"]);
    request.collections.push("third".into());
    let error = take_with(&store, &request, |_| ()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::NotFound);

    // Only the root that was asked for is replaced.
    restore(&store, &second).unwrap();
    assert_eq!(names(&dir.path().join("one")), ["later", "one"]);
    restore(&store, &taken).unwrap();
    assert_eq!(names(&dir.path().join("one")), ["one"]);
    assert_eq!(names(&dir.path().join("two")), ["two"]);
}

#[test]
fn a_root_behind_a_link_is_replaced_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    sample(&dir.path().join("real"));
    symlink("real", dir.path().join("link")).unwrap();
    let store = FilesStore::open(dir.path().join("link")).unwrap();
    let taken = take(&store).unwrap();
    fs::remove_file(dir.path().join("real/none")).unwrap();
    restore(&store, &taken).unwrap();
    assert!(dir.path().join("real/none").exists());
    assert_eq!(fs::read_link(dir.path().join("link")).unwrap(), Path::new("real"));
}

#[test]
fn wrong_roots_are_refused() {
    use backup_core::ErrorKind::InvalidInput;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let kind = |builder: backup_files::FilesBuilder| builder.build().unwrap_err().kind();
    assert_eq!(FilesStore::open(dir.path().join("file")).unwrap_err().kind(), InvalidInput);
    assert_eq!(kind(FilesStore::builder()), InvalidInput);
    assert_eq!(kind(FilesStore::builder().root("", "a")), InvalidInput);
    assert_eq!(kind(FilesStore::builder().root("a", "a").root("a", "b")), InvalidInput);
    assert_eq!(kind(FilesStore::builder().root("a", "a").root("b", "a/b")), InvalidInput);
    assert_eq!(kind(FilesStore::builder().root("a", "a").exclude("[")), InvalidInput);
}
