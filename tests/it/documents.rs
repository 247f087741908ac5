//! What the documents say of the code is so.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn what_the_tutorial_quotes_stands_in_the_example_word_for_word() {
    let (tutorial, example) = (read("docs/ADAPTERS.md"), read("examples/custom_adapter.rs"));
    let quotes: Vec<_> =
        tutorial.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(quotes.len() > 10, "{}", quotes.len());
    for quote in quotes {
        assert!(example.contains(quote), "not in the example:\n{quote}");
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The names of functions in the workspace.
fn functions() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in ["crates", "examples", "src", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    let mut found = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
        found.extend(names.map(str::to_owned));
    }
    found
}

#[test]
fn the_tests_that_the_threat_model_names_are_there() {
    let known = functions();
    let text = read("docs/THREATS.md");
    // What stands in backticks and is named like a test.
    let named: BTreeSet<_> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .filter(|name| name.matches('_').count() > 1 && *name != "cell_size_check")
        .collect();
    assert!(named.len() > 25, "{named:?}");
    let missing: Vec<_> = named.into_iter().filter(|name| !known.contains(*name)).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
}

#[test]
fn every_fault_of_the_table_has_a_test_that_is_there() {
    let mut numbers = Vec::new();
    for row in read("docs/FAULTS.md").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, fault, outcome, shown] = cells[..] else { panic!("{row}") };
        let Ok(number) = number.parse::<u32>() else { continue };
        assert!(!fault.is_empty() && !outcome.is_empty(), "{row}");
        numbers.push(number);
        for test in shown.split(", ") {
            let name = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
            let (file, name) = name.and_then(|name| name.split_once("::")).expect(row);
            let source = read(file);
            let lines: Vec<_> = source.lines().map(str::trim_start).collect();
            let is_test = |pair: &[&str]| {
                (pair[0] == "#[test]" && pair[1].starts_with(&format!("fn {name}(")))
                    || (pair[0].starts_with("#[tokio::test")
                        && pair[1].starts_with(&format!("async fn {name}(")))
            };
            assert!(lines.windows(2).any(is_test), "{number}: there is no test {name} in {file}");
        }
    }
    // What has many cases has several rows.
    assert!(numbers.is_sorted(), "{numbers:?}");
    let mut expected = (1..=22).chain(34..=40).chain(42..=55).chain(57..=72).chain(75..=76);
    assert!(expected.all(|number| numbers.contains(&number)), "{numbers:?}");
}
