//! Archives of other versions of the application.

use std::fs;

use serde_json::json;

use crate::world::{CONFIG, World};

impl World {
    fn configure(&self, config: &str) {
        fs::write(self.path("backup.toml"), config).unwrap();
    }

    /// The columns of the notes.
    fn columns(&self) -> Vec<String> {
        let db = self.db();
        let mut query = db.prepare("SELECT name FROM pragma_table_info('notes')").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

#[test]
fn a_downgrade_has_to_be_allowed() {
    let world = World::with(&CONFIG.replace("1.4.0", "1.4.2"));
    world.good(&["create", "--output", "a.tar.gz"]);
    world.configure(CONFIG);
    let info = world.good(&["info", "a.tar.gz"]);
    for expected in ["downgrade, refused", "written by 1.4.2, this is 1.4.0", "allow the downgrade"]
    {
        assert!(info.contains(expected), "{expected}: {info}");
    }
    let refused = world.json(1, &["restore", "a.tar.gz", "--yes"]);
    assert_eq!(refused["error"]["kind"], "incompatible");
    assert_eq!(refused["error"]["advice"], "allow the downgrade, or update the application");
    let plan = world.json(0, &["restore", "a.tar.gz", "--dry-run", "--allow-downgrade"]);
    assert_eq!(plan["plan"]["versions"]["compatibility"], "downgrade");
    world.good(&["restore", "a.tar.gz", "--yes", "--allow-downgrade"]);

    world.configure(&format!("[versions]\nallow_patch_downgrade = true\n{CONFIG}"));
    world.good(&["restore", "a.tar.gz", "--yes"]);
    let info = world.json(0, &["info", "a.tar.gz"]);
    assert_eq!(info["versions"]["allowed"], true);
    fs::remove_file(world.path("backup.toml")).unwrap();
    assert_eq!(world.json(0, &["info", "a.tar.gz"])["versions"], json!(null));
}

#[test]
fn a_data_schema_is_kept_and_compared() {
    let at =
        |schema: &str| CONFIG.replace("1.4.0\"", &format!("1.4.0\"\ndata_schema = \"{schema}\""));
    let world = World::with(&at("7"));
    world.good(&["create", "--output", "a.tar.gz"]);
    assert_eq!(world.json(0, &["info", "a.tar.gz"])["manifest"]["data_schema_version"], "7");
    world.good(&["restore", "a.tar.gz", "--yes"]);
    world.configure(&at("8"));
    let refused = world.json(1, &["restore", "a.tar.gz", "--yes"]);
    let said = refused["error"]["message"].as_str().unwrap();
    assert!(said.contains("the data schema is 7 in the archive and 8 here"), "{said}");
}

const LOGICAL: &str = "path = \"state.db\"\nmode = \"logical\"";
const MIGRATION: &str = r#"
[[migration]]
from = "1.4.0"
to = "1.5.0"
description = "a note's text is its body"
changes = [
    { store = "state", collection = "notes", rename = "/text", to = "/body" },
    { store = "state", collection = "notes", schema = "/sql", from = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)", to = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL)" },
]

[[migration]]
from = "1.5.0"
to = "2.0.0"
description = "notes can have a language"
warnings = ["all notes count as English"]
changes = [
    { store = "state", collection = "notes", default = "/lang", value = "en" },
    { store = "state", collection = "notes", schema = "/sql", from = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL)", to = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL, lang TEXT)" },
]
"#;

#[test]
fn a_database_goes_over_two_versions_and_back() {
    let old = CONFIG.replace("path = \"state.db\"", LOGICAL) + MIGRATION;
    let new = old.replacen("version = \"1.4.0\"", "version = \"2.0.0\"", 1);
    let world = World::with(&old);
    world.good(&["create", "--output", "old.tar.gz"]);
    world.configure(&new);
    let plan = world.good(&["restore", "old.tar.gz", "--dry-run"]);
    for expected in [
        "version needs migration: the archive was written by 1.4.0, this is 2.0.0",
        "migration from 1.5.0 to 2.0.0: notes can have a language",
        "warning: all notes count as English",
    ] {
        assert!(plan.contains(expected), "{expected}: {plan}");
    }
    let info = world.good(&["info", "old.tar.gz"]);
    assert!(info.contains("1.4.0 to 1.5.0: a note's text is its body"), "{info}");
    world.good(&["restore", "old.tar.gz", "--yes"]);
    assert_eq!(world.columns(), ["id", "body", "lang"]);
    let of = |sql| world.db().query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(of("SELECT group_concat(body || lang) FROM notes"), "firsten,seconden");

    world.good(&["create", "--output", "new.tar.gz"]);
    world.configure(&old);
    let refused = world.json(1, &["restore", "new.tar.gz", "--yes"]);
    assert_eq!(refused["error"]["kind"], "incompatible");
    world.good(&["restore", "new.tar.gz", "--yes", "--allow-downgrade"]);
    assert_eq!(world.columns(), ["id", "text"]);
    assert_eq!(world.notes(), ["first", "second"]);
    world.good(&["create", "--output", "again.tar.gz"]);
    let digest = |archive| {
        world.json(0, &["info", archive])["manifest"]["stores"]["state"]["collections"]["notes"]
            ["digest"]
            .clone()
    };
    assert!(digest("old.tar.gz").is_string());
    assert_eq!(digest("again.tar.gz"), digest("old.tar.gz"));
}

#[test]
fn a_native_database_is_not_migrated() {
    let world = World::new();
    world.good(&["create", "--output", "a.tar.gz"]);
    let config = format!("{CONFIG}{MIGRATION}").replacen("\"1.4.0\"", "\"1.5.0\"", 1);
    world.configure(&config);
    let refused = world.json(1, &["restore", "a.tar.gz", "--yes"]);
    let said = refused["error"]["message"].as_str().unwrap();
    assert!(said.contains("a native snapshot cannot be migrated (state)"), "{said}");
}

#[test]
fn migrations_are_listed() {
    let world = World::new();
    assert_eq!(world.good(&["migrations", "list"]), "no migrations\n");
    world.configure(&format!("{CONFIG}{MIGRATION}"));
    let out = world.good(&["migrations", "list"]);
    let first: Vec<_> = out.lines().take(3).collect();
    assert_eq!(
        first,
        [
            "1.4.0 to 1.5.0: a note's text is its body",
            "  state/notes: /text becomes /body",
            "  state/notes: /sql of the schema changes",
        ]
    );
    assert!(out.contains("  warning: all notes count as English\n"), "{out}");
    let document = world.json(0, &["migrations", "list"]);
    let migrations = document["migrations"].as_array().unwrap();
    assert_eq!(migrations.len(), 2);
    assert_eq!(migrations[0]["reversible"], true);
    assert!(out.contains(migrations[1]["checksum"].as_str().unwrap()), "{out}");
}
