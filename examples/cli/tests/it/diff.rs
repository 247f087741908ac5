//! `diff` and `validate --drill`: what is in an archive against what is elsewhere.

use std::fs;

use backup_kit::{BackupOptions, MemoryStore, Stores, files::FilesStore};
use futures::executor::block_on;
use serde_json::json;

use crate::world::{CONFIG, Ran, World};

fn logical() -> World {
    World::with(&CONFIG.replace("path = \"state.db\"", "path = \"state.db\"\nmode = \"logical\""))
}

#[test]
fn two_archives_are_compared_record_by_record() {
    let world = logical();
    world.good(&["create", "--output", "one.tar.gz"]);
    let same = world.good(&["diff", "one.tar.gz", "one.tar.gz"]);
    assert_eq!(same, "left:  one.tar.gz\nright: one.tar.gz\nstate: equal\nuploads: equal\n");
    let db = world.db();
    db.execute_batch("DELETE FROM notes WHERE id = 1; UPDATE notes SET text = 'x' WHERE id = 2")
        .unwrap();
    db.execute_batch("INSERT INTO notes VALUES (7, 'seven'), (8, 'eight')").unwrap();
    fs::write(world.path("uploads/a.md"), "# B\n").unwrap();
    world.good(&["create", "--output", "two.tar.gz"]);
    let ran = world.run(&["diff", "one.tar.gz", "two.tar.gz", "--keys", "1"]);
    let expected = "\
left:  one.tar.gz
right: two.tar.gz
state
  notes: 1 only left, 2 only right, 1 changed
    < 1
    > 7
    > and 1 more
    ~ 2
uploads
  root: 1 changed
    ~ a.md
";
    assert_eq!((ran.code, &*ran.out), (Some(4), expected), "{ran:?}");
    let document = world.json(4, &["diff", "one.tar.gz", "two.tar.gz"]);
    assert_eq!(document["equal"], false);
    let notes = &document["diff"]["stores"]["state"]["collections"]["notes"];
    assert_eq!(notes["only_right"], json!({"count": 2, "first": ["7", "8"]}));
    assert_eq!(world.run(&["diff", "one.tar.gz", "gone.tar.gz"]).code, Some(10));
}

#[test]
fn an_archive_is_compared_with_what_is_live() {
    let config = CONFIG.replace("path = \"backups\"", "path = \"uploads/backups\"");
    let cache = "[[store]]\nname = \"cache\"\nkind = \"files\"\npath = \"sub\"\ndefault = false\n";
    let world = World::with(&format!("{config}\n{cache}"));
    fs::create_dir(world.path("sub")).unwrap();
    world.good(&["create"]);
    world.good(&["create", "--output", "one.tar.gz"]);
    world.good(&["create"]);
    let same = world.json(0, &["diff", "one.tar.gz"]);
    assert_eq!(same["equal"], true, "{same}");
    assert_eq!(same["diff"]["right"]["archive"], json!(null));
    assert_eq!(same["diff"]["stores"].as_object().unwrap().len(), 2, "{same}");
    world.good(&["diff", "latest"]);
    world.db().execute_batch("UPDATE notes SET text = 'x' WHERE id = 2").unwrap();
    fs::remove_file(world.path("uploads/sub/b.html")).unwrap();
    let ran = world.run(&["diff", "one.tar.gz"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    for expected in ["main.db: differs; a native snapshot is compared as a whole", "< sub/b.html"] {
        assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
    }
    assert_eq!(world.notes(), ["first", "x"]);
}

// Runs the tool with its own folder for temporary files, which has to be empty afterwards.
fn drilled(world: &World, args: &[&str]) -> Ran {
    let tmp = world.path("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let ran: Ran = world.command(args).env("TMPDIR", &tmp).output().unwrap().into();
    assert_eq!(world.list("tmp"), Vec::<String>::new(), "{ran:?}");
    ran
}

#[test]
fn a_drill_restores_elsewhere_and_leaves_nothing() {
    for world in [World::new(), logical()] {
        world.good(&["create", "--output", "one.tar.gz"]);
        world.db().execute_batch("DELETE FROM notes WHERE id = 1").unwrap();
        fs::write(world.path("uploads/later.md"), "later").unwrap();
        let before = (world.notes(), world.list("uploads"));
        let ran = drilled(&world, &["validate", "one.tar.gz", "--drill"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        for store in ["state", "uploads"] {
            assert!(ran.out.contains(&format!("  {store}: restored for a drill and equal\n")));
        }
        assert_eq!((world.notes(), world.list("uploads")), before);
        let ran = drilled(&world, &["validate", "one.tar.gz", "--drill", "--json"]);
        let drill = json!({"restored": ["state", "uploads"], "left_out": {}});
        assert_eq!(ran.document()["drill"], drill);
    }
}

#[test]
fn a_drill_of_a_part_and_of_nothing() {
    let world = logical();
    fs::remove_dir_all(world.path("uploads")).unwrap();
    fs::create_dir(world.path("uploads")).unwrap();
    world.db().execute_batch("CREATE TABLE none (id INTEGER PRIMARY KEY)").unwrap();
    world.good(&["create", "--output", "empty.tar.gz"]);
    assert_eq!(drilled(&world, &["validate", "empty.tar.gz", "--drill"]).code, Some(0));
    world.good(&["create", "--output", "part.tar.gz", "--select", "collection=state/notes"]);
    let ran = drilled(&world, &["validate", "part.tar.gz", "--drill"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn what_has_no_embedded_form_is_not_drilled() {
    let world = World::new();
    let vectors = MemoryStore::new();
    vectors.insert("points", 1, json!({})).unwrap();
    // A version under development, of another application than the configuration's.
    let of = |name: &str, store: MemoryStore| {
        let uploads = FilesStore::open(world.path("uploads")).unwrap();
        let all = Stores::new("other", "0.2.1dev1").with("uploads", uploads).with(name, store);
        let path = world.path(&format!("{name}.tar.gz"));
        block_on(all.backup_to_file(path, &BackupOptions::new())).unwrap();
    };
    of("vectors", vectors);
    let ran = drilled(&world, &["validate", "vectors.tar.gz", "--drill"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.out.contains("uploads: restored for a drill and equal"), "{}", ran.out);
    assert!(ran.out.contains("vectors: not drilled: a store of kind memory"), "{}", ran.out);
    assert_eq!(world.run(&["validate", "vectors.tar.gz"]).code, Some(0));

    // Every hash is right, and it is no database.
    let broken = MemoryStore::new().with_kind("sqlite");
    broken.put_blob("main.db", vec![7; 100_000]);
    of("broken", broken);
    assert_eq!(world.run(&["validate", "broken.tar.gz"]).code, Some(0));
    let ran = drilled(&world, &["validate", "broken.tar.gz", "--drill"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
}
