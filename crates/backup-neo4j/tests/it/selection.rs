//! Part of a graph.

use backup_core::{Condition, NoticeKind, PinRequest, manifest::FieldMapping};
use neo4j_testserver::{Server, shared};
use serde_json::json;

use crate::kit::{Read, options, read, runtime};

/// Four documents of two projects, linked in a ring with a hop, and a person.
fn graph(server: &Server) {
    let made = "UNWIND [['a', 'x', 2023], ['b', 'x', 2024], ['c', 'y', 2024], ['d', 'x', 2025]] AS d \
                CREATE (:Document {id: d[0], project: d[1], year: d[2], \
                        created: datetime({year: d[2], month: 1, day: 1})})";
    server.cypher(made, json!({})).expect("made");
    let links = "UNWIND ['ab', 'bc', 'cd', 'da', 'bd'] AS link \
                 MATCH (a:Document {id: left(link, 1)}), (b:Document {id: right(link, 1)}) \
                 CREATE (a)-[:LINKS {year: a.year, project: 'x'}]->(b)";
    server.cypher(links, json!({})).expect("made");
    let person = "MATCH (a:Document {id: 'a'}) CREATE (:Person {id: 'p'})-[:WROTE]->(a)";
    server.cypher(person, json!({})).expect("made");
}

fn part(server: &Server, collections: &[&str], conditions: &[(Option<&str>, &str)]) -> Read {
    let mut fields = FieldMapping::default();
    fields.project = Some("/project".to_owned());
    fields.created_at = Some("/created/_value".to_owned());
    let mut request = PinRequest::new();
    request.collections = collections.iter().map(|name| (*name).to_owned()).collect();
    request.conditions = conditions
        .iter()
        .map(|(name, text)| (name.map(str::to_owned), text.parse::<Condition>().unwrap()))
        .collect();
    let read = runtime().block_on(async {
        let store = options(server)
            .key("Document", ["id"])
            .key("Person", ["id"])
            .fields_of("Document", fields)
            .connect()
            .await?;
        read(&store, &request).await
    });
    read.unwrap()
}

fn keys(read: &Read, collection: &str) -> Vec<String> {
    let key = |line: &String| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        match &record["key"] {
            serde_json::Value::String(id) => id.clone(),
            ends => format!("{}{}", ends[0][1].as_str().unwrap(), ends[1][1].as_str().unwrap()),
        }
    };
    read.lines.get(collection).into_iter().flatten().map(key).collect()
}

#[test]
fn a_relationship_stays_where_both_its_ends_stay_and_the_others_are_counted() {
    let Some(server) = shared() else { return };
    graph(&server);
    let whole = part(&server, &[], &[]);
    assert_eq!(keys(&whole, "[LINKS]"), ["ab", "bc", "bd", "cd", "da"]);
    assert!(whole.notices.is_empty() && whole.statistics["[LINKS]"].is_empty());

    // By property.
    let old = part(&server, &[], &[(Some("Document"), "/year<2025")]);
    assert_eq!(keys(&old, "Document"), ["a", "b", "c"]);
    assert_eq!(keys(&old, "[LINKS]"), ["ab", "bc"]);
    assert_eq!(old.statistics["[LINKS]"]["relationships_cut"], 3);
    assert_eq!(keys(&old, "[WROTE]"), ["pa"]);
    assert!(old.statistics["[WROTE]"].is_empty());
    let notice = &old.notices[0];
    assert_eq!((notice.kind, notice.collection.as_str()), (NoticeKind::LeftOut, "[LINKS]"));
    assert_eq!(notice.detail, "3 have an end that is not in the selection");

    // By project and by date.
    let project = part(&server, &[], &[(Some("Document"), "project=x")]);
    assert_eq!(keys(&project, "[LINKS]"), ["ab", "bd", "da"]);
    let date = part(&server, &[], &[(Some("Document"), "created>=2024-01-01")]);
    assert_eq!(keys(&date, "Document"), ["b", "c", "d"]);
    assert_eq!(keys(&date, "[LINKS]"), ["bc", "bd", "cd"]);

    // By label and type.
    let documents = part(&server, &["Document", "[LINKS]"], &[]);
    assert_eq!(documents.lines.keys().collect::<Vec<_>>(), ["Document", "[LINKS]"]);
    assert_eq!(documents.lines["[LINKS]"].len(), 5);
    let alone = part(&server, &["Document", "[WROTE]"], &[]);
    assert_eq!(alone.statistics["[WROTE]"]["relationships_cut"], 1);
    assert!(alone.lines["[WROTE]"].is_empty());
}

#[test]
fn what_is_not_there_cannot_be_chosen() {
    let Some(server) = shared() else { return };
    graph(&server);
    let rt = runtime();
    let store = rt.block_on(options(&server).connect()).unwrap();
    for (name, kind) in [
        ("Nobody", backup_core::ErrorKind::NotFound),
        ("[NOTHING]", backup_core::ErrorKind::NotFound),
        ("[", backup_core::ErrorKind::InvalidInput),
    ] {
        let mut request = PinRequest::new();
        request.collections = vec![name.to_owned()];
        let error = rt.block_on(read(&store, &request)).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}
