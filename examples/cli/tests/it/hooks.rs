//! Programs of the configuration around a restore.

use std::fs;

use crate::world::{CONFIG, World};

/// A world with a backup, and other notes since; each hook writes a line of what it saw.
fn world(check: &str, stop: &str) -> World {
    let say = |word: &str, then: &str| {
        format!(
            "{{ command = [\"sh\", \"-c\", \"echo {word}; echo {word} $(cat uploads/a.md) >> said; \
             {then}\"], seconds = 2 }}"
        )
    };
    let hooks = format!(
        "[restore]\nstop = {}\ncheck = {}\nstart = {}\n",
        say("stop", stop),
        say("check", check),
        say("start", "true"),
    );
    let world = World::with(&CONFIG.replace("[catalog]", &format!("{hooks}\n[catalog]")));
    world.good(&["create"]);
    fs::write(world.path("uploads/a.md"), "new").unwrap();
    world
}

fn said(world: &World) -> String {
    fs::read_to_string(world.path("said")).unwrap_or_default()
}

#[test]
fn programs_stop_check_and_start() {
    let world = world("true", "true");
    let ran = world.run(&["restore", "latest", "--yes"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(said(&world), "stop new\ncheck # A\nstart # A\n");
    // Standard output is the result's.
    assert!(!ran.out.contains("check\n") && ran.err.contains("check\n"), "{ran:#?}");
    let document = world.json(0, &["restore", "latest", "--yes"]);
    assert_eq!(document["restored"], true);
}

#[test]
fn a_check_that_fails_takes_all_back() {
    for (check, why) in [("exit 7", "exit status: 7"), ("exec sleep 60", "longer than 2s")] {
        let world = world(check, "true");
        let ran = world.run(&["restore", "latest", "--yes"]);
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.err.contains(why), "{ran:#?}");
        assert!(ran.err.contains("live content is as before"), "{ran:#?}");
        assert_eq!(said(&world), "stop new\ncheck # A\nstart new\n");
        assert_eq!(fs::read_to_string(world.path("uploads/a.md")).unwrap(), "new");
    }
}

#[test]
fn where_the_application_does_not_stop_nothing_is_touched() {
    let world = world("true", "false");
    let ran = world.run(&["restore", "latest", "--yes"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert_eq!(said(&world), "stop new\nstart new\n");
    assert_eq!(fs::read_to_string(world.path("uploads/a.md")).unwrap(), "new");
    // A dry-run calls nobody.
    world.good(&["restore", "latest", "--dry-run"]);
    assert_eq!(said(&world), "stop new\nstart new\n");
}
