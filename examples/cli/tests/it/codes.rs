//! Exit codes, and that nothing is done on the way to one.

use std::{fs, process::Stdio};

use crate::world::{CONFIG, World};

#[test]
fn usage_is_2() {
    let world = World::new();
    for args in [
        &["creat"][..],
        &["create", "--no-such"],
        &["restore"],
        &["create", "--include", "nothing"],
        &["create", "--exclude", "*"],
        &["list", "--sort", "colour"],
    ] {
        let ran = world.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert_eq!(ran.out, "", "{args:?}");
        assert!(!ran.err.is_empty(), "{args:?}");
    }
    let world = World::with(&CONFIG.replace("exclude", "exlude"));
    let ran = world.run(&["create"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("unknown key `exlude` in [[store]] (backup.toml:18:1)"), "{ran:?}");
    assert!(ran.err.contains("did you mean `exclude`?"), "{}", ran.err);
}

#[test]
fn partial_is_3_and_names_what_is_missing() {
    let world = World::with(&CONFIG.replace("exclude", "optional = true\nexclude"));
    fs::remove_dir_all(world.path("uploads")).unwrap();
    let ran = world.run(&["create"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.err.contains("uploads"), "{}", ran.err);
    assert!(ran.out.contains("partial: without uploads"), "{}", ran.out);
    let document = world.json(3, &["create"]);
    assert_eq!(document["partial"], true);
    assert_eq!(document["missing"][0], "uploads");
    assert_eq!(document["notices"][0]["store"], "uploads", "{document}");
    // A partial archive is a good one all the same.
    let valid = world.json(0, &["validate", "latest"]);
    assert_eq!(valid["partial"], true);
}

#[test]
fn missing_is_10() {
    let world = World::new();
    world.good(&["create"]);
    for args in [
        &["info", "no-such-file.tar.gz"][..],
        &["validate", "01890000-0000-7000-8000-000000000000"],
        &["restore", "gone.tar.gz", "--yes"],
        &["list", "-c", "other.toml"],
    ] {
        let ran = world.run(args);
        assert_eq!(ran.code, Some(10), "{args:?}: {ran:?}");
        let document = world.json(10, args);
        assert_eq!(document["error"]["kind"], "not-found", "{args:?}");
        assert_eq!(document["exit_code"], 10);
    }
    let empty = World::new();
    assert_eq!(empty.run(&["info", "latest"]).code, Some(10));
    fs::remove_file(empty.path("state.db")).unwrap();
    let ran = empty.run(&["create"]);
    assert_eq!(ran.code, Some(10), "{ran:?}");
    assert_eq!(empty.list("backups").iter().filter(|n| n.contains(".tar")).count(), 0);
}

#[test]
fn locked_is_11() {
    let world = World::new();
    world.good(&["create"]);
    let lock = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(world.path("backups/restore.lock"))
        .unwrap();
    lock.lock().unwrap();
    let ran = world.run(&["restore", "latest", "--yes"]);
    assert_eq!(ran.code, Some(11), "{ran:?}");
    assert_eq!(world.notes(), ["first", "second"]);
    lock.unlock().unwrap();
    world.good(&["restore", "latest", "--yes"]);

    let lock = fs::File::options().write(true).open(world.path("backups/catalog.lock")).unwrap();
    lock.lock().unwrap();
    let document = world.json(11, &["create"]);
    assert_eq!(document["error"]["kind"], "locked");
}

#[test]
fn damage_is_1_and_names_the_place() {
    let world = World::new();
    world.good(&["create", "--output", "a.tar.gz"]);
    let mut bytes = fs::read(world.path("a.tar.gz")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(world.path("flipped.tar.gz"), &bytes).unwrap();
    let ran = world.run(&["validate", "flipped.tar.gz"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("flipped.tar.gz"), "{}", ran.err);
    assert_eq!(ran.out, "");
    fs::write(world.path("cut.tar.gz"), &bytes[..middle]).unwrap();
    for args in [&["info", "cut.tar.gz"][..], &["restore", "cut.tar.gz", "--yes"]] {
        assert_eq!(world.run(args).code, Some(1), "{args:?}");
    }
    assert_eq!(world.notes(), ["first", "second"]);
}

#[test]
fn nobody_to_ask_is_2_and_nothing_is_restored() {
    let world = World::new();
    world.good(&["create"]);
    world.db().execute_batch("DELETE FROM notes").unwrap();
    let ran = world.run(&["restore", "latest"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("--yes"), "{}", ran.err);
    assert_eq!(world.notes(), Vec::<String>::new());
}

#[test]
fn a_result_that_nobody_gets_is_a_failure() {
    let world = World::new();
    world.good(&["create"]);
    for args in [&["list"][..], &["info", "latest"], &["validate", "latest"], &["create"]] {
        for json in [&[][..], &["--json"]] {
            let full = fs::File::options().write(true).open("/dev/full").unwrap();
            let args = [args, json].concat();
            let mut command = world.command(&args);
            let status = command.stdout(full).stderr(Stdio::null()).status().unwrap();
            assert_eq!(status.code(), Some(1), "{args:?}");
        }
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = world.command(&["create", "--output", "-"]);
    let status = command.stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}
