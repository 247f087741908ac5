//! What the documents point at is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The targets of `[text](target)`, but for those in code and elsewhere on the network.
fn links(text: &str) -> Vec<&str> {
    let outside_code = text.split("```").step_by(2);
    outside_code
        .flat_map(|prose| prose.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .collect()
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut all = Vec::new();
    documents(Path::new(env!("CARGO_MANIFEST_DIR")), &mut all);
    assert!(all.len() > 10, "{all:?}");
    let mut dead = Vec::new();
    let mut count = 0;
    for document in &all {
        let text = fs::read_to_string(document).unwrap();
        for link in links(&text) {
            count += 1;
            let target = link.split('#').next().unwrap();
            if !document.parent().unwrap().join(target).exists() {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(count > 10);
    assert_eq!(dead, Vec::<String>::new());
}

#[test]
fn ci_runs_the_two_commands_of_the_readme() {
    let read = |name| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    assert!(readme.contains("\n./test "));
    assert!(ci.contains(" .ci/tests\n") && read(".ci/tests").contains(" ./test "));
    assert!(readme.contains("\ncargo run --release -p quickstart "));
    assert!(ci.contains("cargo run --release --locked -p quickstart"));
}
