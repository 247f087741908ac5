//! The documented form, and what is said of any other.

use super::{secret::Secret, *};

const GOOD: &str = r#"
[app]                       # whose data this is; versions are compared at restore
name = "docs-memory"
version = "1.4.0"

[catalog]                   # where archives go
path = "backups"

[[store]]
name = "state"              # its name in the archive
kind = "sqlite"
path = "state.db"

[[store]]
name = "uploads"
kind = "files"
path = "/srv/uploads"
exclude = ["*.tmp"]
optional = true
default = false
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/memory")).map_err(|fault| {
        let (line, column) = position(text, fault.at);
        let hint = fault.hint.map(|hint| format!(" | {hint}")).unwrap_or_default();
        format!("{line}:{column}: {}{hint}", fault.what)
    })
}

#[test]
fn the_documented_form_reads() {
    let config = parse(GOOD).unwrap();
    assert_eq!(
        config.app,
        App { name: "docs-memory".into(), version: "1.4.0".into(), data_schema: None }
    );
    assert_eq!(config.catalog.as_deref(), Some(Path::new("/etc/memory/backups")));
    let [state, uploads] = config.stores.try_into().unwrap();
    assert_eq!(
        state,
        Store {
            name: "state".into(),
            kind: Kind::Sqlite { path: "/etc/memory/state.db".into(), form: Form::Native },
            optional: false,
            default: true,
            fields: BTreeMap::new(),
            conflicts: BTreeMap::new(),
        }
    );
    assert_eq!(
        uploads,
        Store {
            name: "uploads".into(),
            kind: Kind::Files { path: "/srv/uploads".into(), exclude: vec!["*.tmp".into()] },
            optional: true,
            default: false,
            fields: BTreeMap::new(),
            conflicts: BTreeMap::new(),
        }
    );
}

#[test]
fn the_examples_in_the_readme_read() {
    let readme = include_str!("../../README.md");
    let examples = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let config = parse(&examples.collect::<String>()).unwrap();
    assert_eq!(config.stores.len(), 5);
    assert_eq!(config.app.data_schema.as_deref(), Some("8"));
    assert_eq!(config.versions, VersionPolicy::new());
    let [reference] = config.references.try_into().unwrap();
    assert_eq!(reference.to_string(), "state/notes:/file -> uploads/root");
    let [migration] = config.migrations.available().try_into().unwrap();
    assert_eq!(
        migration.changes,
        [
            "state/notes: /title becomes /name",
            "state/notes: /sql of the schema changes",
            "state/notes: /lang is \"en\" where there is none",
            "state/notes: /draft goes",
            "state/tmp becomes state/scratch",
            "state/cache goes",
        ]
    );
    assert!(!migration.reversible);
}

fn with(more: &str) -> Result<Config, String> {
    let store = "[[store]]\nname = \"s\"\nkind = \"files\"\npath = \"p\"\n";
    parse(&format!("[app]\nname = \"a\"\nversion = \"1\"\n{store}{more}"))
}

#[test]
fn every_rule_of_versions_can_be_turned() {
    let config = with(
        "[versions]\nstrict = true\nallow_patch_downgrade = true\nallow_minor_downgrade = true\n\
         allow_development = true\nallow_unknown = true\ncheck_schema = false\nmax_age_days = 7",
    );
    let week = std::time::Duration::from_secs(7 * 24 * 60 * 60);
    let policy = VersionPolicy::new()
        .strict(true)
        .allow_patch_downgrade(true)
        .allow_minor_downgrade(true)
        .allow_development(true)
        .allow_unknown(true)
        .check_schema(false)
        .max_age(week);
    assert_eq!(config.unwrap().versions, policy);
    let never = with("[versions]\nmax_age_days = 0").unwrap().versions;
    assert_eq!(never, VersionPolicy::new().max_age(None));
}

#[test]
fn every_fault_of_a_reference_has_its_place_and_its_remedy() {
    // After seven lines and the head.
    let reference = |lines: &str| with(&format!("[[reference]]\n{lines}"));
    let [good] = reference("from = \"s/a:/b\"\nto = \"s/c\"\nrequired = true")
        .unwrap()
        .references
        .try_into()
        .unwrap();
    assert_eq!(good.to_string(), "s/a:/b -> s/c");
    assert!(good.is_required());
    for (lines, expected) in [
        ("from = \"s/a\"", "8:1: [[reference]] has no `to` | add `to`"),
        (
            "from = \"s\"\nto = \"s/c\"",
            "9:8: `from` is not the end of a reference | write it like store/collection or \
             store/collection:/field",
        ),
        ("from = \"s/a\"\nto = \"t/c\"", "10:6: there is no store `t` | known here: s"),
        (
            "from = \"s/a:/~\"\nto = \"s/c\"",
            "9:8: `from` has no JSON pointer after the colon | write it like \
             store/collection:/field, with ~1 for / and ~0 for ~",
        ),
        (
            "from = \"s/a\"\nto = \"s/c\"\n[[reference]]\nfrom = \"s/a\"\nto = \"s/c\"",
            "11:1: the reference s/a -> s/c is there twice",
        ),
    ] {
        assert_eq!(reference(lines).unwrap_err(), expected);
    }
    let wrong = with("reference = 1").unwrap_err();
    assert!(wrong.starts_with("8:"), "{wrong}");
}

#[test]
fn every_fault_of_a_migration_has_its_place_and_its_remedy() {
    // After eight lines and the head.
    let migration = |changes: &str| {
        let head = "[[migration]]\nfrom = \"1.0.0\"\nto = \"1.1.0\"\ndescription = \"d\"\n";
        let place = "store = \"s\", collection = \"c\"";
        with(&format!("{head}changes = [\n{}\n]", changes.replace("AT", place))).unwrap_err()
    };
    for (change, expected) in [
        (
            "{ AT, renam = \"/a\" }",
            "13:1: a change does nothing that is known | give it one of: rename, default, remove, \
             rename_collection, drop_collection, schema",
        ),
        (
            "{ AT, remove = \"/a\", default = \"/b\", value = 1 }",
            "13:1: a change does two things | give it one of: rename, default, remove, \
             rename_collection, drop_collection, schema",
        ),
        (
            "{ AT, remove = \"/a\", to = \"/b\" }",
            "13:49: unknown key `to` in a change | known here: remove, store, collection, undo",
        ),
        ("{ AT, rename = \"/a\" }", "13:1: a change has no `to` | add `to`"),
        ("{ collection = \"c\", remove = \"/a\" }", "13:1: a change has no `store` | add `store`"),
        (
            "{ AT, default = \"/a\", value = 2026-01-01 }",
            "13:58: JSON has no such value: write the time as a text, in quotes",
        ),
        (
            "{ AT, remove = \"/a\", undo = { store = \"s\", remove = \"/a\" } }",
            "13:58: unknown key `store` in `undo` | known here: remove",
        ),
        (
            "{ AT, remove = \"a\" }",
            "8:1: not a JSON pointer to a field (migration 1.0.0 to 1.1.0: \"a\") | write it like \
             /meta/title, with ~1 for / and ~0 for ~",
        ),
    ] {
        assert_eq!(migration(change), expected, "{change}");
    }
    let step = |from: &str, to: &str| {
        format!("[[migration]]\nfrom = \"{from}\"\nto = \"{to}\"\ndescription = \"d\"\n")
    };
    for (text, expected) in [
        (
            step("1.0.0", "1.1.0") + &step("1.2.0", "1.3.0"),
            "8:1: there is a gap between the migrations: nothing connects 1.1.0 with 1.2.0 | add \
             the migration between them",
        ),
        (
            step("1.0.0", "1.1.0") + &step("1.2.0", "1.1.0"),
            "12:1: a migration has to lead to a later version (migration 1.2.0 to 1.1.0) | turn it \
             round: the way back is made of the inverse of its changes",
        ),
        ("[migration]\n".into(), "8:1: `migration` has to be a list | write [[migration]]"),
        (
            step("1.0.0", "1.1.0") + "changes = 1\n",
            "12:11: `changes` in [[migration]] has to be a list",
        ),
        (
            "[versions]\nmax_age_days = -1\n".into(),
            "9:16: `max_age_days` in [versions] has to be a whole number from zero on",
        ),
        (
            "[versions]\nalow_unknown = true\n".into(),
            "9:1: unknown key `alow_unknown` in [versions] | did you mean `allow_unknown`?",
        ),
    ] {
        assert_eq!(with(&text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn every_fault_has_its_place_and_its_remedy() {
    let app = "[app]\nname = \"a\"\nversion = \"1\"\n";
    let store = "[[store]]\nname = \"s\"\nkind = \"files\"\npath = \"p\"\n";
    let cases: &[(String, &str)] = &[
        (
            GOOD.replace("exclude", "exlude"),
            "18:1: unknown key `exlude` in [[store]] | did you mean `exclude`?",
        ),
        (
            GOOD.replace("[app] ", "[ap] "),
            "2:2: unknown key `ap` in the configuration | did you mean `app`?",
        ),
        (
            format!("{app}{store}password = \"hunter2\""),
            "8:1: unknown key `password` in [[store]] | known here: name, kind, optional, default, fields, conflicts, path, exclude",
        ),
        (
            format!("{app}[[store]]\nname = \"s\"\nkind = \"sqlit\""),
            "6:8: unknown kind of store `sqlit` | did you mean `sqlite`?",
        ),
        (
            format!("{app}[[store]]\nname = \"s\"\nkind = \"sqlite\"\npath=\"p\"\nexclude = []"),
            "8:1: unknown key `exclude` in [[store]] | known here: name, kind, optional, default, fields, conflicts, path, mode",
        ),
        (
            format!(
                "{app}[[store]]\nname = \"s\"\nkind = \"sqlite\"\npath=\"p\"\nmode = \"logic\""
            ),
            "8:8: unknown mode `logic` | did you mean `logical`?",
        ),
        (
            format!("{app}[[store]]\nkind = \"files\"\npath = \"p\""),
            "4:1: [[store]] has no `name` | add `name`",
        ),
        (format!("{app}[store]\nname = \"s\""), "4:1: `store` has to be a list | write [[store]]"),
        (format!("{app}{store}{store}"), "8:1: two stores have the name `s`"),
        (format!("store = []\n{app}"), "1:9: there is no [[store]]"),
        (app.into(), "1:1: the configuration has no `store` | add `store`"),
        (
            format!("{app}{store}optional = 1"),
            "8:12: `optional` in [[store]] has to be true or false",
        ),
        (
            format!("{app}{store}exclude = [1]"),
            "8:11: `exclude` in [[store]] has to be a list of texts",
        ),
        (format!("[app]\nname = \"\"\nversion = \"1\"\n{store}"), "2:8: `name` is empty"),
        (
            format!("[app]\nname = 7\nversion = \"1\"\n{store}"),
            "2:8: `name` in [app] has to be a text in quotes",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).unwrap_err(), *expected, "{text}");
    }
}

#[test]
fn a_broken_file_is_not_quoted() {
    let error = parse("[app]\npassword = \"hunter2").unwrap_err();
    assert!(error.starts_with("2:"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn fields_are_mapped_collection_by_collection() {
    let store = "[[store]]\nname = \"s\"\nkind = \"sqlite\"\npath = \"p\"\n";
    let fields = "[store.fields.notes]\ntag = \"/tags\"\nlang = \"/meta/lang\"\n";
    let app = "[app]\nname = \"a\"\nversion = \"1\"\n";
    let config = parse(&format!("{app}{store}{fields}")).unwrap();
    let notes = &config.stores[0].fields["notes"];
    assert_eq!((notes.get("tags"), notes.get("lang")), (Some("/tags"), Some("/meta/lang")));
    let inline = "fields.notes = { tags = \"/tags\", lang = \"/meta/lang\" }";
    assert_eq!(parse(&format!("{app}{store}{inline}")).unwrap().stores, config.stores);
    for (fields, expected) in [
        ("fields = 1", "8:10: `fields` has to be a table, not integer"),
        ("fields.n = []", "8:12: the fields of a collection has to be a table, not array"),
        (
            "fields.n = { project = \"p\" }",
            "8:24: `project` has to be a JSON pointer | write it like /meta/project",
        ),
        (
            "fields.n = { project = 1 }",
            "8:24: `project` in the fields of a collection has to be a text in quotes",
        ),
        (
            "fields.n = { \"a b\" = \"/p\" }",
            "8:14: `a b` cannot be the name of a field | use letters, digits, _ and -",
        ),
    ] {
        assert_eq!(parse(&format!("{app}{store}{fields}")).unwrap_err(), expected);
    }
}

#[test]
fn rules_for_conflicts_are_read() {
    let app = "[app]\nname = \"a\"\nversion = \"1\"\n";
    let restore = "[restore]\nconflict = \"keep-newer\"\n";
    let store = "[[store]]\nname = \"s\"\nkind = \"sqlite\"\npath = \"p\"\n";
    let of_notes = "conflicts.notes = \"skip\"\n";
    let config = parse(&format!("{app}{restore}{store}{of_notes}")).unwrap();
    assert_eq!(config.conflict, Some(Conflict::KeepNewer));
    assert_eq!(config.stores[0].conflicts["notes"], Conflict::Skip);
    let wrong = format!("{app}[restore]\nconflict = \"keep-new\"\n{store}");
    assert_eq!(
        parse(&wrong).unwrap_err(),
        "5:12: unknown rule `keep-new` | did you mean `keep-newer`?"
    );
    let wrong = format!("{app}{store}conflicts.notes = 1");
    assert_eq!(
        parse(&wrong).unwrap_err(),
        "8:19: `notes` in `conflicts` has to be a text in quotes"
    );
}

fn store(keys: &str) -> Result<Store, String> {
    let head = "[app]\nname = \"a\"\nversion = \"1\"\n[[store]]\nname = \"s\"\n";
    parse(&format!("{head}{keys}")).map(|mut config| config.stores.remove(0))
}

#[test]
fn servers_are_read_and_their_secrets_are_elsewhere() {
    let keys = "kind = \"qdrant\"\nurl = \"https://q.example:6334\"\nmode = \"native\"\n\
                rest_url = \"https://q.example/rest\"\ncollections = [\"docs-*\"]\n\
                without = [\"docs-tmp\"]\npeers = [\"https://r:6333\"]\nmodel = \"m\"\nroot_certificate = \"ca.pem\"\n\
                api_key = { env = \"QDRANT_API_KEY\" }";
    let Kind::Qdrant(server) = store(keys).unwrap().kind else { panic!("another kind") };
    assert_eq!(server.url, "https://q.example:6334");
    assert_eq!(server.rest_url.as_deref(), Some("https://q.example/rest"));
    assert_eq!(
        (server.collections, server.without),
        (vec!["docs-*".into()], vec!["docs-tmp".into()])
    );
    assert_eq!(server.peers, ["https://r:6333"]);
    assert_eq!(server.form, Form::Native);
    assert_eq!(server.model.as_deref(), Some("m"));
    assert_eq!(server.root_certificate, Some("/etc/memory/ca.pem".into()));
    assert_eq!(server.secret, Some(Secret::Env("QDRANT_API_KEY".into())));

    let redis = "kind = \"redis\"\nurl = \"redis://localhost:6379/2\"\nuser = \"u\"\n\
                 password = { file = \"redis.key\" }\nusers = true\nsettings = [\"hz\"]";
    let Kind::Redis(server) = store(redis).unwrap().kind else { panic!("another kind") };
    assert_eq!(server.form, Form::Logical);
    assert_eq!(server.secret, Some(Secret::File("/etc/memory/redis.key".into())));
    assert_eq!((server.functions, server.users), (false, true));
    assert_eq!(server.settings, ["hz"]);

    let neo4j = "kind = \"neo4j\"\nurl = \"bolt://localhost:7687\"\ndatabase = \"graph\"\n\
                 password = { command = [\"pass\", \"neo4j\"] }\n\
                 key = { Person = [\"first\", \"last\"] }";
    let Kind::Neo4j(server) = store(neo4j).unwrap().kind else { panic!("another kind") };
    assert_eq!(server.database.as_deref(), Some("graph"));
    let words = vec!["pass".into(), "neo4j".into()];
    assert_eq!(server.secret, Some(Secret::Command { words, folder: "/etc/memory".into() }));
    let key = vec!["first".into(), "last".into()];
    assert_eq!(server.node_keys, [("Person".into(), key)].into());
    let empty = store("kind = \"neo4j\"\nurl = \"bolt://h:7687\"\nkey = { Person = [] }");
    assert!(empty.unwrap_err().contains("the key of `Person` is empty"));
}

#[test]
fn a_secret_in_the_configuration_is_refused_and_not_repeated() {
    let forms = "write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"PROGRAM\", …] }";
    let qdrant = "kind = \"qdrant\"\nurl = \"http://h:6334\"\n";
    let redis = "kind = \"redis\"\n";
    for (keys, expected) in [
        (
            format!("{qdrant}api_key = \"hunter2\""),
            format!("8:11: `api_key` has to say where the secret is, and not what it is | {forms}"),
        ),
        (
            format!("{qdrant}api_key = {{ key = \"hunter2\" }}"),
            "8:13: unknown key `key` in api_key | known here: env, file, command".into(),
        ),
        (
            format!("{qdrant}api_key = {{}}"),
            format!("8:11: `api_key` has to be in one place | {forms}"),
        ),
        (
            format!("{qdrant}api_key = {{ env = \"A\", file = \"b\" }}"),
            format!("8:11: `api_key` has to be in one place | {forms}"),
        ),
        (
            format!("{qdrant}api_key = {{ command = [] }}"),
            format!("8:23: `command` names no program | {forms}"),
        ),
        (
            format!("{redis}url = \"redis://:hunter2@h\""),
            "7:7: `url` may hold no user name, password or question mark | give them as keys of \
             their own"
                .into(),
        ),
        (
            format!("{redis}url = \"redis://h?password=hunter2\""),
            "7:7: `url` may hold no user name, password or question mark | give them as keys of \
             their own"
                .into(),
        ),
        (
            format!("{redis}url = \"localhost\""),
            "7:7: `url` is no address | write it like scheme://host:port".into(),
        ),
        (redis.into(), "4:1: [[store]] has no `url` | add `url`".into()),
        (
            format!("{redis}url = \"redis://h\"\npath = \"p\""),
            "8:1: unknown key `path` in [[store]] | known here: name, kind, optional, default, \
             fields, conflicts, url, root_certificate, user, password, keys, \
             functions, users, settings"
                .into(),
        ),
    ] {
        let error = store(&keys).unwrap_err();
        assert_eq!(error, expected, "{keys}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn programs_around_a_restore_are_read() {
    let config = with(
        "[restore]\nstop = { command = [\"systemctl\", \"stop\", \"memory\"] }\n\
         check = { command = [\"./check\"], seconds = 5 }",
    )
    .unwrap();
    let stop = config.hooks.stop.unwrap();
    assert_eq!(stop.words, ["systemctl", "stop", "memory"]);
    assert_eq!((stop.folder, stop.deadline.as_secs()), ("/etc/memory".into(), 60));
    assert_eq!(config.hooks.check.unwrap().deadline.as_secs(), 5);
    assert_eq!(config.hooks.start, None);
    for (line, expected) in [
        ("stop = \"x\"", "9:8: stop has to be a table, not string"),
        ("stop = {}", "9:8: stop has no `command` | add `command`"),
        (
            "stop = { command = [] }",
            "9:20: `command` names no program | write [\"PROGRAM\", \"ARGUMENT\", …]",
        ),
        ("stop = { command = [\"x\"], seconds = 0 }", "9:8: `stop` has no time"),
        ("stp = {}", "9:1: unknown key `stp` in [restore] | did you mean `stop`?"),
    ] {
        assert_eq!(with(&format!("[restore]\n{line}")).unwrap_err(), expected);
    }
}
