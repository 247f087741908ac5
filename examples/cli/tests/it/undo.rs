//! What a merge changes is kept, and comes back.

use std::fs;

use crate::world::{CONFIG, World};

fn logical() -> String {
    CONFIG.replace("path = \"state.db\"", "path = \"state.db\"\nmode = \"logical\"")
}

/// A world whose archive has other notes than are live.
fn world() -> World {
    let world = World::with(&logical());
    world.good(&["create", "--include", "state"]);
    world
        .db()
        .execute_batch(
            "UPDATE notes SET text = 'mine' WHERE id = 1;
             DELETE FROM notes WHERE id = 2;
             INSERT INTO notes (id, text) VALUES (3, 'third');",
        )
        .unwrap();
    world
}

const MERGE: [&str; 4] = ["restore", "latest", "--merge", "--yes"];

fn kept(world: &World) -> String {
    let inside = world.list("backups/before-restore");
    let [name] = &inside.iter().filter(|name| name.ends_with(".tar.gz")).collect::<Vec<_>>()[..]
    else {
        panic!("{inside:?}")
    };
    format!("backups/before-restore/{name}")
}

#[test]
fn the_records_that_a_merge_changes_are_kept_and_no_others() {
    let world = world();
    let plan = world.good(&["restore", "latest", "--merge", "--dry-run"]);
    assert!(plan.contains("Records are kept before they are changed"), "{plan}");
    assert!(plan.contains(": 3 times the "), "{plan}");
    let said = world.good(&MERGE);
    assert!(said.contains("the records that were changed are in "), "{said}");
    assert!(!said.contains("what was live before is in"), "{said}");
    assert_eq!(world.notes(), ["first", "second", "third"]);

    let undo = kept(&world);
    let info = world.json(0, &["info", &undo]);
    let notes = &info["manifest"]["stores"]["state"]["collections"]["notes"];
    assert_eq!(notes["records"], 1, "{info}");
    let back = world.good(&["restore", &undo, "--yes", "--no-safety-backup"]);
    assert!(back.contains("state/notes: 1 updated"), "{back}");
    assert_eq!(world.notes(), ["mine", "second", "third"], "what is new stays");
}

#[test]
fn a_database_that_gives_no_records_is_kept_whole_and_so_is_one_that_shall_be() {
    let world = world();
    let said = world.good(&[&MERGE[..], &["--whole-safety-backup"]].concat());
    assert!(said.contains("what was live before is in "), "{said}");
    world.good(&["restore", &kept(&world), "--yes", "--no-safety-backup"]);
    assert_eq!(world.notes(), ["mine", "third"], "all is as it was");

    fs::remove_dir_all(world.path("backups/before-restore")).unwrap();
    fs::write(world.path("backup.toml"), CONFIG).unwrap();
    let said = world.good(&MERGE);
    assert!(said.contains("what was live before is in "), "{said}");
    world.good(&["restore", &kept(&world), "--yes", "--no-safety-backup"]);
    assert_eq!(world.notes(), ["mine", "third"], "all is as it was");
}
