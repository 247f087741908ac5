//! The tables of `docs/VERSIONS.md`, row by row.

use serde_json::json;

use super::*;
use crate::{
    manifest::StoreManifest,
    migrate::{Change, Migration},
    part::BlobContent,
    record::Sha256Digest,
};

/// The rows of the table whose head this is.
fn table<const N: usize>(head: [&str; N]) -> Vec<[String; N]> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/VERSIONS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let head = format!("| {} |", head.join(" | "));
    let rows = text.lines().skip_while(|line| *line != head).skip(2);
    let rows: Vec<_> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            let cells: Vec<_> = cells.collect();
            cells.try_into().unwrap_or_else(|_| panic!("{row}"))
        })
        .collect();
    assert!(rows.len() > 5, "{head}");
    rows
}

fn policy(words: &str) -> VersionPolicy {
    words.split(',').map(str::trim).fold(VersionPolicy::new(), |policy, word| match word {
        "" => policy,
        "asked" => policy.asked(true),
        "strict" => policy.strict(true),
        "patch downgrade" => policy.allow_patch_downgrade(true),
        "minor downgrade" => policy.allow_minor_downgrade(true),
        "development" => policy.allow_development(true),
        "unknown" => policy.allow_unknown(true),
        "no schema check" => policy.check_schema(false),
        other => panic!("{other}"),
    })
}

fn migrations(text: &str) -> Migrations {
    let steps = text.split(',').map(str::trim).filter(|step| !step.is_empty()).map(|step| {
        let [from, arrow, to] = step.split(' ').collect::<Vec<_>>()[..] else { panic!("{step}") };
        let migration = Migration::new(from, to);
        match arrow {
            "⇄" => migration.change(Change::rename("s", "c", "/a", "/b")),
            "→" => migration.change(Change::remove("s", "c", "/a")),
            other => panic!("{other}"),
        }
    });
    Migrations::new(steps).unwrap()
}

fn yes(word: &str) -> bool {
    match word {
        "yes" => true,
        "no" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn versions_are_judged_as_documented() {
    let head = ["archive", "runs", "policy", "migrations", "verdict", "restored"];
    for row in table(head) {
        let [archive, runs, words, steps, expected, restored] = &row;
        let migrations = migrations(steps);
        let verdict = policy(words).judge(Versions::new(archive), Versions::new(runs), &migrations);
        assert_eq!(verdict.compatibility.to_string(), *expected, "{row:?}: {verdict}");
        assert_eq!(verdict.allowed, yes(restored), "{row:?}: {verdict}");
        assert_eq!(
            verdict.migration.is_some(),
            verdict.compatibility == Compatibility::NeedsMigration,
            "{row:?}"
        );
        assert_eq!(verdict.next_step == "restore it", verdict.allowed, "{row:?}: {verdict}");
    }
}

#[test]
fn data_schemas_are_judged_as_documented() {
    let rows = table([
        "archive",
        "runs",
        "schema in the archive",
        "schema here",
        "policy",
        "migrations",
        "verdict",
        "restored",
        "warned",
    ]);
    for row in rows {
        let [archive, runs, theirs, ours, words, steps, expected, restored, warned] = &row;
        let versions = |version, schema: &'static str| {
            Versions::new(version).data_schema((!schema.is_empty()).then_some(schema))
        };
        let leak = |text: &String| -> &'static str { text.clone().leak() };
        let verdict = policy(words).judge(
            versions(leak(archive), leak(theirs)),
            versions(leak(runs), leak(ours)),
            &migrations(steps),
        );
        assert_eq!(verdict.compatibility.to_string(), *expected, "{row:?}: {verdict}");
        assert_eq!(verdict.allowed, yes(restored), "{row:?}: {verdict}");
        assert_eq!(!verdict.warnings.is_empty(), yes(warned), "{row:?}: {verdict:?}");
    }
}

#[test]
fn engines_are_judged_as_documented() {
    for row in table(["wrote", "runs", "parts", "verdict"]) {
        let [wrote, runs, parts, expected] = &row;
        let version = |text: &String| (!text.is_empty()).then(|| text.clone());
        let mut store = StoreManifest { engine_version: version(wrote), ..Default::default() };
        if parts == "native" {
            let blob = BlobContent { len: 0, digest: Sha256Digest::of(b""), masked: vec![] };
            store.blobs.insert("a".into(), blob);
        }
        let found = match engine(&store, version(runs).as_deref()) {
            EngineFit::Fits => "fits",
            EngineFit::Unknown(_) => "unknown",
            EngineFit::Older(_) => "older",
            EngineFit::Other(_) => "other",
        };
        assert_eq!(found, expected, "{row:?}");
    }
}

#[test]
fn a_verdict_says_why_and_what_to_do() {
    let judge = |archive, runs, words: &str, steps: &str| {
        policy(words).judge(Versions::new(archive), Versions::new(runs), &migrations(steps))
    };
    let verdict = judge("1.4.2", "1.4.0", "", "");
    assert_eq!(
        verdict.to_string(),
        "downgrade, refused: the archive was written by 1.4.2, this is 1.4.0; it is a newer patch \
         of 1.4; a downgrade was not allowed"
    );
    assert_eq!(verdict.next_step, "allow the downgrade, or update the application");
    assert_eq!(
        judge("1.3.0", "2.0.0", "", "").next_step,
        "register migrations from 1.3.0 to 2.0.0, or restore with version 1.3.0"
    );
    assert_eq!(judge("2.0.0", "1.3.0", "", "").next_step, "update the application to 2.0.0");
    // What an archive names does not steer a terminal.
    let verdict = judge("1\u{1b}[2J", "1.4.0", "", "");
    assert!(!verdict.to_string().contains('\u{1b}'), "{verdict}");
    let verdict = judge("main", "main", "", "");
    assert_eq!(
        verdict.warnings,
        ["main is no version that can be compared: another one will be refused"]
    );
}

#[test]
fn a_verdict_names_the_migrations_and_what_they_warn_of() {
    let migrations = Migrations::new([
        Migration::new("1.3.0", "1.4.0").describe("titles are names").warn("names are unique"),
        Migration::new("1.4.0", "1.5.0").change(Change::set_default("s", "c", "/l", json!("en"))),
    ])
    .unwrap();
    let (old, new) = (Versions::new("1.3.2"), Versions::new("1.5.1"));
    let up = VersionPolicy::new().judge(old, new, &migrations);
    assert_eq!(up.warnings, ["names are unique"]);
    let shown = serde_json::to_value(&up).unwrap();
    assert_eq!(shown["compatibility"], "needs-migration");
    assert_eq!(shown["migration"][0]["description"], "titles are names");
    assert_eq!(shown["migration"][1]["changes"], json!(["s/c: /l is \"en\" where there is none"]));
    let back = VersionPolicy::new().asked(true).judge(new, old, &migrations);
    assert_eq!(back.warnings, ["s/c: /l goes", "names are unique"]);
    assert_eq!(back.migration.unwrap().to_string(), "1.5.0 → 1.4.0 → 1.3.0");
}

#[test]
fn old_backups_and_those_of_tomorrow_are_told() {
    let policy = VersionPolicy::new();
    let day = |number: i64| Timestamp::from_micros(number * 86_400_000_000);
    let age = |created, now| policy.age(day(created), day(now));
    assert_eq!(age(0, 90), None);
    assert_eq!(age(0, 91).as_deref(), Some("the backup is 91 days old"));
    assert_eq!(age(1, 0), None);
    assert_eq!(age(3, 0).as_deref(), Some("the backup is dated 3 days in the future"));
    assert_eq!(policy.clone().max_age(None).age(day(0), day(10_000)), None);
    assert_eq!(
        policy.max_age(DAY).age(day(0), day(2)).as_deref(),
        Some("the backup is 2 days old")
    );
}
