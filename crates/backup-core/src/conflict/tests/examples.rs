//! The tables of docs/CONFLICTS.md.

use super::*;

const DOCUMENT: &str = include_str!("../../../../../docs/CONFLICTS.md");

// The cells of each row of the tables that begin with this heading, without their backquotes.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let mut lines = DOCUMENT.lines();
    let mut rows = Vec::new();
    while lines.by_ref().any(|line| line.starts_with(heading)) {
        let table = lines.by_ref().skip(1).take_while(|line| line.starts_with('|'));
        rows.extend(table.map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            cells.map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>()
        }));
    }
    rows
}

fn outcome(resolved: &Resolved) -> String {
    let counts = &resolved.counts;
    let by_name = serde_json::to_value(counts).unwrap();
    let mut names: Vec<_> = by_name.as_object().unwrap().iter().filter(|(_, n)| **n == 1).collect();
    names.retain(|(name, _)| *name != "undated");
    let [(name, _)] = &names[..] else { panic!("{counts:?}") };
    match &resolved.skipped[..] {
        [] => (*name).clone(),
        skipped => {
            let reason = serde_json::to_value(skipped[0].reason).unwrap();
            let undated = u64::from(skipped[0].reason == SkipReason::NoTime);
            assert_eq!((skipped.len(), counts.undated), (1, undated));
            format!("{name}: {}", reason.as_str().unwrap())
        }
    }
}

#[test]
fn values_become_what_the_document_says() {
    let rows = rows("| rule | live | archive |");
    assert!(rows.len() > 30, "{} examples", rows.len());
    for row in rows {
        let [rule, live, archived, afterwards, expected] = row[..] else { panic!("{row:?}") };
        let rule: Conflict = rule.parse().unwrap();
        let (live, archived) = (batch(&[("1", live)]), batch(&[("1", archived)]));
        let resolved = match resolve(rule, &archived, &live) {
            Ok(resolved) => resolved,
            Err(error) => {
                assert_eq!((error.kind(), expected), (ErrorKind::Conflict, "error"), "{row:?}");
                continue;
            }
        };
        assert_eq!(outcome(&resolved), expected, "{row:?}");
        let written: Vec<_> = resolved.batches.iter().flat_map(RecordBatch::iter).collect();
        match written[..] {
            [] => assert_eq!(live.get(0).value_json(), afterwards, "{row:?}"),
            [record] => assert_eq!(record.value_json(), afterwards, "{row:?}"),
            _ => panic!("{row:?}"),
        }
    }
}

#[test]
fn keys_become_what_the_document_says() {
    let rows = rows("| old key | new key |");
    assert!(rows.len() > 5, "{} examples", rows.len());
    for row in rows {
        let (old, new) = (row[0], row[1]);
        let (live, archived) = (batch(&[(old, "1")]), batch(&[(old, "2")]));
        match resolve(Conflict::KeepBoth, &archived, &live) {
            Ok(resolved) => assert_eq!(resolved.copied[0].new_key.as_json(), new, "{row:?}"),
            Err(error) => {
                assert_eq!((error.kind(), "error"), (ErrorKind::Conflict, new), "{row:?}");
                assert!(error.advice().contains("keep-both"), "{}", error.report());
            }
        }
    }
}

#[test]
fn every_rule_has_an_example() {
    let rows = rows("| rule | live | archive |");
    for rule in Conflict::ALL {
        assert!(rows.iter().any(|row| row[0] == rule.as_str()), "{rule}");
    }
}
