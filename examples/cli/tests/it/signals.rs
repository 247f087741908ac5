//! Ctrl-C and its relatives: cleaned up, and an exit code that tells.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::world::World;

/// Starts a run and returns once it says that it has begun.
fn begin(world: &World, args: &[&str]) -> Child {
    let mut command = world.command(&[args, &["--json"]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("started"), "{first}");
    // Whatever else it says has to go somewhere, or it would wait.
    thread::spawn(move || lines.for_each(drop));
    child
}

fn send(child: &Child, signal: &str) {
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[test]
fn an_interrupted_backup_leaves_nothing() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let world = World::new();
        // A hole: takes long to read and no room.
        File::create(world.path("uploads/large")).unwrap().set_len(1 << 40).unwrap();
        let mut child = begin(&world, &["create"]);
        thread::sleep(Duration::from_millis(300));
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let left = world.list("backups");
        assert!(!left.iter().any(|name| name.contains(".tar")), "{left:?}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let world = World::new();
    // A database that nobody may read makes the run wait for its time limit.
    let db = world.db();
    db.execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE").unwrap();
    let start = Instant::now();
    let mut child = begin(&world, &["create"]);
    thread::sleep(Duration::from_millis(200));
    send(&child, "-INT");
    thread::sleep(Duration::from_millis(200));
    send(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn an_interrupted_restore_is_taken_back() {
    let world = World::new();
    fs::write(world.path("uploads/large"), vec![7; 64 << 20]).unwrap();
    world.good(&["create"]);
    world.db().execute_batch("DELETE FROM notes").unwrap();
    let mut child = begin(&world, &["restore", "latest", "--yes"]);
    send(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(world.notes(), Vec::<String>::new());
    assert_eq!(world.good(&["resume"]), "nothing to resume\n");
}
