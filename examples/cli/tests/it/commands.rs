//! What each command does.

use std::{fs, process::Command};

use serde_json::json;

use crate::world::{CONFIG, World};

fn archives(world: &World) -> Vec<String> {
    world.list("backups").into_iter().filter(|name| name.ends_with(".tar.gz")).collect()
}

#[test]
fn a_memory_goes_there_and_back() {
    let world = World::new();
    let out = world.good(&["create", "--description", "before the upgrade"]);
    let [name] = archives(&world).try_into().unwrap();
    assert!(out.contains(&format!("backups/{name}")), "{out}");
    let info = world.json(0, &["info", "latest"]);
    let id = info["id"].as_str().unwrap();
    assert!(out.contains(id), "{out}");
    assert_eq!(info["manifest"]["description"], "before the upgrade");

    world.db().execute_batch("DELETE FROM notes; INSERT INTO notes (text) VALUES ('new')").unwrap();
    fs::remove_dir_all(world.path("uploads/sub")).unwrap();
    fs::write(world.path("uploads/later.md"), "later").unwrap();
    let out = world.good(&["restore", id, "--yes"]);
    assert!(out.starts_with("restored backup"), "{out}");
    assert_eq!(world.notes(), ["first", "second"]);
    let uploads = world.list("uploads");
    assert!(uploads.contains(&"sub/b.html".to_owned()), "{uploads:?}");
    assert!(!uploads.contains(&"later.md".to_owned()), "{uploads:?}");
    assert_eq!(world.good(&["resume"]), "nothing to resume\n");
}

#[test]
fn a_dry_run_shows_the_plan_and_touches_nothing() {
    let world = World::new();
    world.good(&["create"]);
    world.db().execute_batch("DELETE FROM notes").unwrap();
    // The database's own files beside it come and go with whoever looks into it.
    let state = || {
        let mut files = world.list("");
        files.retain(|name| !name.starts_with("state.db-"));
        (files, world.notes())
    };
    let before = state();
    let out = world.good(&["restore", "latest", "--dry-run"]);
    for expected in ["docs-memory 1.4.0", "state", "uploads", "Nothing has been changed"] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    let document = world.json(0, &["restore", "latest", "--dry-run"]);
    assert_eq!(document["dry_run"], true);
    assert_eq!(document["plan"]["stores"].as_array().unwrap().len(), 2);
    assert_eq!(state(), before);
}

#[test]
fn a_selection_takes_what_it_says_and_is_shown() {
    let logical = CONFIG.replace(
        "path = \"state.db\"\n",
        "path = \"state.db\"\nmode = \"logical\"\nfields.notes = { title = \"/text\" }\n",
    );
    let world = World::with(&logical);
    let all = ["title=first", "store=state"];
    let expressions =
        [all, ["title starts-with fir", "store=state"], ["/text!=second", "store=state"]];
    for [rule, store] in expressions {
        let made = world.json(0, &["create", "--select", store, "--select", rule]);
        assert_eq!((&made["records"], &made["stores"]), (&json!(1), &json!(["state"])), "{rule}");
        assert_eq!(made["selection"], json!(["store=state", rule]));
    }
    let info = world.good(&["info", "latest"]);
    assert!(info.contains("selected  store=state; /text!=second"), "{info}");
    assert!(info.contains("1 of 2"), "{info}");
    assert!(world.good(&["list"]).contains("  selected  state"), "{}", world.good(&["list"]));
    let listed = world.json(0, &["list"]);
    assert_eq!(listed["archives"][0]["selection"], json!(["store=state", "title=first"]));

    // Folders and native snapshots have no records to choose from.
    let before = archives(&world);
    let refused = world.run(&["create", "--select", "title=first"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("unmapped=leave-out"), "{refused:?}");
    let refused = world.run(&["create", "--select", "title=two words"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("title=two words, character 11"), "{refused:?}");
    assert_eq!(archives(&world), before);
    let made =
        world.json(0, &["create", "--select", "title=first", "--select", "unmapped=leave-out"]);
    assert_eq!(made["stores"], json!(["state"]));
}

#[test]
fn info_and_list_tell_what_is_there() {
    let world = World::new();
    assert_eq!(world.good(&["list"]), "no archives\n");
    world.good(&["create", "--description", "one"]);
    world.good(&["create", "--include", "state", "--description", "two"]);
    let info = world.good(&["info", "latest"]);
    for expected in ["docs-memory 1.4.0", "two", "state", "sqlite", "main.db", "at one moment"] {
        assert!(info.contains(expected), "{expected}: {info}");
    }
    assert!(!info.contains("uploads"), "{info}");
    let verbose = world.good(&["info", "latest", "--verbose"]);
    assert!(verbose.len() > info.len());

    let list = world.good(&["list"]);
    assert!(list.find("one").unwrap() < list.find("two").unwrap(), "{list}");
    assert_eq!(list.lines().count(), 3, "{list}");
    let parts = world.good(&["list", "latest"]);
    assert!(parts.lines().next().unwrap().ends_with("  backup.json"), "{parts}");
    assert!(parts.contains("stores/state/_native/main.db"), "{parts}");
    let listed = world.json(0, &["list", "latest"]);
    assert_eq!(listed["parts"].as_array().unwrap().len(), parts.lines().count());
    let by_size = world.json(0, &["list", "--sort", "size"]);
    let descriptions: Vec<_> = by_size["archives"]
        .as_array()
        .unwrap()
        .iter()
        .map(|archive| archive["description"].clone())
        .collect();
    assert_eq!(descriptions, [json!("two"), json!("one")]);
}

#[test]
fn stores_are_chosen_by_name() {
    let config = format!(
        "{CONFIG}\n[[store]]\nname = \"cache\"\nkind = \"files\"\npath = \"sub\"\ndefault = false\n"
    );
    let world = World::with(&config);
    fs::create_dir(world.path("sub")).unwrap();
    for (args, expected) in [
        (&[][..], &["state", "uploads"][..]),
        (&["--include", "cache"], &["cache"]),
        (&["--include", "state,cache"], &["cache", "state"]),
        (&["--include", "*", "--exclude", "up*"], &["cache", "state"]),
        (&["--exclude", "uploads"], &["state"]),
    ] {
        let made = world.json(0, &[&["create"], args].concat());
        let info = world.json(0, &["info", made["path"].as_str().unwrap()]);
        let stores: Vec<_> = info["manifest"]["stores"].as_object().unwrap().keys().collect();
        assert_eq!(stores, expected, "{args:?}");
        assert_eq!(info["partial"], false, "{args:?}");
    }
}

#[test]
fn an_output_is_written_where_it_was_named() {
    let world = World::new();
    world.good(&["create", "--output", "one.tar.gz"]);
    assert_eq!(archives(&world), Vec::<String>::new());
    let first = fs::read(world.path("one.tar.gz")).unwrap();
    let again = world.run(&["create", "--output", "one.tar.gz"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(fs::read(world.path("one.tar.gz")).unwrap(), first);
    world.good(&["create", "--output", "one.tar.gz", "--force"]);
    assert_ne!(fs::read(world.path("one.tar.gz")).unwrap(), first);
    world.good(&["validate", "one.tar.gz"]);
}

#[test]
fn a_catalog_may_lie_within_a_store_or_around_it() {
    for catalog in ["uploads/backups", "."] {
        let config = CONFIG.replace("path = \"backups\"", &format!("path = \"{catalog}\""));
        let world = World::with(&config);
        let made: Vec<String> = ["one", "two"]
            .map(|text| world.json(0, &["create", "-d", text])["path"].as_str().unwrap().to_owned())
            .into();
        let elsewhere = world.json(0, &["create", "--output", "uploads/sub/elsewhere.tar.gz"]);
        // A folder and two files: nothing of the catalog, nor the archive itself.
        assert_eq!(elsewhere["records"], 3, "{elsewhere}");
        fs::rename(world.path("uploads/sub/elsewhere.tar.gz"), world.path("elsewhere.tar.gz"))
            .unwrap();
        for archive in ["latest", "elsewhere.tar.gz", made[0].as_str()] {
            fs::write(world.path("uploads/a.md"), "changed").unwrap();
            world.good(&["restore", archive, "--yes"]);
            assert_eq!(fs::read_to_string(world.path("uploads/a.md")).unwrap(), "# A\n");
            for path in &made {
                world.good(&["validate", path]);
            }
        }
    }
}

#[test]
fn an_archive_can_go_to_a_pipe() {
    let world = World::new();
    let ran = world.command(&["create", "--output", "-"]).output().unwrap();
    assert!(ran.status.success());
    fs::write(world.path("piped.tar.gz"), &ran.stdout).unwrap();
    world.good(&["validate", "piped.tar.gz"]);
    let ran = world.command(&["create", "--output", "-", "--json"]).output().unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    let document: serde_json::Value = serde_json::from_str(err.lines().last().unwrap()).unwrap();
    assert_eq!(document["size"], ran.stdout.len());
}

#[test]
fn stock_tools_open_what_it_made() {
    let world = World::new();
    world.good(&["create", "--output", "a.tar.gz"]);
    fs::create_dir(world.path("opened")).unwrap();
    let script = "tar xzf ../a.tar.gz && sha256sum --quiet --strict -c checksums.sha256";
    let shell = Command::new("sh").args(["-c", script]).current_dir(world.path("opened")).output();
    let shell = shell.unwrap();
    assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
    let opened = world.list("opened");
    assert!(opened.contains(&"stores/state/_native/main.db".to_owned()), "{opened:?}");
    assert!(opened.iter().any(|path| path.ends_with("sub/b.html")), "{opened:?}");
    assert!(!opened.iter().any(|path| path.ends_with(".tmp")), "{opened:?}");
}

#[test]
fn parts_are_extracted_by_pattern() {
    let world = World::new();
    world.good(&["create", "--output", "a.tar.gz"]);
    let out = world.good(&["extract", "a.tar.gz", "--to", "all"]);
    assert!(out.ends_with("into all\n"), "{out}");
    assert!(world.list("all").contains(&"backup.json".to_owned()));
    world.good(&["extract", "a.tar.gz", "--to", "some", "--part", "**/*.html"]);
    let some = world.list("some");
    assert!(some.iter().any(|path| path.ends_with("b.html")), "{some:?}");
    assert!(!some.iter().any(|path| path.ends_with(".db") || path.ends_with(".md")), "{some:?}");
    let none = world.run(&["extract", "a.tar.gz", "--to", "none", "--part", "*.html"]);
    assert_eq!(none.code, Some(10), "{none:?}");
    assert!(!world.path("none").exists());
    assert_eq!(world.run(&["extract", "a.tar.gz", "--to", "all"]).code, Some(1));
}

#[test]
fn what_is_whole_is_salvaged_and_the_rest_named() {
    let world = World::new();
    // Two segments: what is large begins one of its own.
    fs::write(world.path("uploads/b.bin"), noise(2 << 20)).unwrap();
    world.good(&["create", "--output", "a.tar.gz"]);
    world.good(&["salvage", "a.tar.gz", "--to", "whole"]);
    assert_eq!(world.list("whole").len(), {
        world.good(&["extract", "a.tar.gz", "--to", "extracted"]);
        world.list("extracted").len()
    });

    let mut bytes = fs::read(world.path("a.tar.gz")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(world.path("damaged.tar.gz"), &bytes).unwrap();
    assert_eq!(world.run(&["validate", "damaged.tar.gz"]).code, Some(1));
    let ran = world.run(&["salvage", "damaged.tar.gz", "--to", "saved"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.out.contains("b.bin"), "{}", ran.out);
    let saved = world.list("saved");
    assert!(saved.contains(&"stores/state/_native/main.db".to_owned()), "{saved:?}");
    assert!(!saved.iter().any(|path| path.ends_with("b.bin")), "{saved:?}");
    let document = world.json(3, &["salvage", "damaged.tar.gz", "--to", "again"]);
    assert_eq!(document["lost_count"], 1, "{document}");
}

// What does not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_logical_database_goes_there_and_back() {
    let config = CONFIG.replace("path = \"state.db\"", "path = \"state.db\"\nmode = \"logical\"");
    let world = World::with(&config);
    world.good(&["create"]);
    let info = world.json(0, &["info", "latest"]);
    let notes = &info["manifest"]["stores"]["state"]["collections"]["notes"];
    assert_eq!(notes["records"], 2, "{info}");
    world.db().execute_batch("DROP TABLE notes").unwrap();
    world.good(&["restore", "latest", "-y"]);
    assert_eq!(world.notes(), ["first", "second"]);
}

#[test]
fn help_names_every_command_and_code() {
    let world = World::new();
    let help = world.good(&["--help"]);
    for word in [
        "create", "list", "info", "validate", "diff", "restore", "resume", "extract", "salvage",
        "130, 143",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(world.good(&["--version"]).starts_with("backup-kit "));
}

#[test]
fn what_is_whole_in_a_damaged_archive_is_restored_on_request() {
    // As records: an image of a database is whole or lost.
    let world = World::with(&CONFIG.replace("\"sqlite\"", "\"sqlite\"\nmode = \"logical\""));
    world.good(&["create"]);
    let [name] = archives(&world).try_into().unwrap();
    let path = world.path("backups").join(&name);
    let mut bytes = fs::read(&path).unwrap();
    // The trailer, and with it the way to everything.
    bytes.truncate(bytes.len() - 20);
    fs::write(&path, bytes).unwrap();
    world.db().execute_batch("DELETE FROM notes").unwrap();
    let refused = world.run(&["restore", path.to_str().unwrap(), "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(world.notes().is_empty());
    let out = world.run(&["restore", &name, "--salvage", "--yes"]);
    assert_eq!(out.code, Some(3), "{out:?}");
    assert!(out.out.contains("lost in the archive, and not live: "), "{out:?}");
    assert_eq!(world.notes(), ["first", "second"]);
    // What was live before can be had back.
    let safety = world.list("backups/before-restore");
    let safety = safety.iter().find(|name| name.ends_with(".tar.gz")).unwrap();
    world.good(&["restore", &format!("backups/before-restore/{safety}"), "--yes"]);
    assert!(world.notes().is_empty());
}

#[test]
fn references_are_counted_and_hold_a_restore_back() {
    let config = CONFIG.replace("\"sqlite\"", "\"sqlite\"\nmode = \"logical\"");
    let reference = "[[reference]]\nfrom = \"state/notes:/text\"\nto = \"state/tags\"\n";
    let world = World::with(&(config + reference + "required = true\n"));
    let tags = "CREATE TABLE tags (name TEXT PRIMARY KEY); INSERT INTO tags VALUES ('first')";
    world.db().execute_batch(tags).unwrap();
    let line = "state/notes:/text -> state/tags: 1 of 2 values dangles: \"second\"";
    let made = world.json(0, &["create", "--output", "a.tar.gz"]);
    assert_eq!(made["references"][0]["dangling"], 1);
    let out = world.good(&["create"]);
    assert!(out.contains(&format!("reference  {line}\n")), "{out}");
    let info = world.good(&["info", "latest"]);
    assert!(info.contains(&format!("\nReferences\n  {line}\n")), "{info}");
    let out = world.good(&["restore", "latest", "--dry-run"]);
    assert!(out.contains(&format!("reference in the archive: {line}\n")), "{out}");
    let out = world.good(&["restore", "latest", "--yes"]);
    assert!(out.contains(&format!("  reference {line}; 1 in the archive\n")), "{out}");

    world.db().execute_batch("DELETE FROM notes; DELETE FROM tags").unwrap();
    let cut = ["restore", "latest", "--yes", "--select", "state/tags: /name!=first"];
    let refused = world.run(&cut);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("a required reference would dangle"), "{refused:?}");
    assert!(world.notes().is_empty());
    let allowed = world.run(&[&cut[..], &["--allow-dangling"]].concat());
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    assert!(allowed.err.contains("2 of 2 values dangle"), "{allowed:?}");
    assert_eq!(world.notes(), ["first", "second"]);
}

#[test]
fn records_are_selected_and_added_by_a_rule() {
    let world = World::with(&CONFIG.replace("\"sqlite\"", "\"sqlite\"\nmode = \"logical\""));
    world.good(&["create"]);
    world
        .db()
        .execute_batch(
            "UPDATE notes SET text = 'live' WHERE id = 2; DELETE FROM notes WHERE id = 1",
        )
        .unwrap();
    let one = ["restore", "latest", "--select", "collection=state/notes"];
    let dry = [&one[..], &["--conflict", "skip", "--dry-run"]].concat();
    let out = world.good(&dry);
    assert!(out.contains("added to"), "{out}");
    assert!(out.contains("state/notes: 1 new, 1 skipped\n"), "{out}");
    assert!(out.contains("2 is skipped: it is there already"), "{out}");
    assert_eq!(world.notes(), ["live"]);
    let out = world.good(&[&one[..], &["--conflict", "skip", "--yes"]].concat());
    assert!(out.contains("state/notes: 1 new, 1 skipped\n"), "{out}");
    assert_eq!(world.notes(), ["first", "live"]);
    world.good(&[&one[..], &["--conflict", "state/notes=overwrite", "--yes"]].concat());
    assert_eq!(world.notes(), ["first", "second"]);
    let wrong = world.run(&[&one[..], &["--conflict", "newest", "--yes"]].concat());
    assert!(wrong.err.contains("use one of skip, overwrite"), "{wrong:?}");
    for (vector, said) in [
        ("state/notes=text", "the archive's collection has no such vector"),
        ("state/note=text", "the archive has no such collection"),
        ("notes=text", "this names no collection"),
        ("state/notes", "this names no vector"),
    ] {
        let wrong = world.run(&[&one[..], &["--drop-vector", vector, "--yes"]].concat());
        assert!(wrong.code != Some(0) && wrong.err.contains(said), "{wrong:?}");
    }
    let wrong = world.run(&["restore", "latest", "--map", "state=", "--yes"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}
