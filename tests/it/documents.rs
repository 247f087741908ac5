//! What the documents say of the code is so.

use std::{fs, path::Path};

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
