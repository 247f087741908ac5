//! Every type of property, parallel relationships, loops, constraints and indexes.

use backup_core::{Adapter, PinRequest, record::RecordBatch};
use neo4j_testserver::shared;
use serde_json::json;

use crate::kit::{options, read, runtime};

/// Constraints and indexes of every kind that the Community edition has.
pub(crate) const RULES: [&str; 10] = [
    "CREATE CONSTRAINT c2 FOR (n:A) REQUIRE (n.x, n.y) IS UNIQUE",
    "CREATE CONSTRAINT c3 FOR ()-[r:R]-() REQUIRE r.id IS UNIQUE",
    "CREATE INDEX i1 FOR (n:A) ON (n.x)",
    "CREATE TEXT INDEX i2 FOR (n:A) ON (n.t)",
    "CREATE POINT INDEX i3 FOR (n:A) ON (n.p) OPTIONS {indexConfig: {`spatial.cartesian.min`: [-5.0, -5.0], `spatial.cartesian.max`: [5.0, 5.0]}}",
    "CREATE FULLTEXT INDEX i4 FOR (n:A|B) ON EACH [n.t, n.u] OPTIONS {indexConfig: {`fulltext.analyzer`: 'english'}}",
    "CREATE VECTOR INDEX i5 FOR (n:B) ON (n.v) OPTIONS {indexConfig: {`vector.dimensions`: 3, `vector.similarity_function`: 'euclidean'}}",
    "CREATE INDEX i6 FOR ()-[r:R]-() ON (r.a, r.b)",
    "CREATE FULLTEXT INDEX i7 FOR ()-[r:R|S]-() ON EACH [r.t]",
    "CREATE INDEX `empty ``one` FOR (n:Nobody) ON (n.x)",
];

/// Properties of every type as the server's language has them, and as records have them.
pub(crate) const TYPES: [(&str, &str); 38] = [
    ("true", "true"),
    ("1", "1"),
    ("-9007199254740991", "-9007199254740991"),
    ("9007199254740993", r#"{"$type":"Integer","_value":"9007199254740993"}"#),
    ("-9223372036854775808", r#"{"$type":"Integer","_value":"-9223372036854775808"}"#),
    ("1.0", "1.0"),
    ("-0.0", "-0.0"),
    ("1e22", "1e22"),
    ("5e-324", "5e-324"),
    ("0.0/0.0", r#"{"$type":"Float","_value":"NaN"}"#),
    ("1.0/0.0", r#"{"$type":"Float","_value":"Infinity"}"#),
    ("''", r#""""#),
    ("'é😀\"\\\\ \\n'", "\"é😀\\\"\\\\ \\n\""),
    ("date('2024-02-29')", r#"{"$type":"Date","_value":"2024-02-29"}"#),
    ("date('-999999999-01-01')", r#"{"$type":"Date","_value":"-999999999-01-01"}"#),
    ("date('+999999999-12-31')", r#"{"$type":"Date","_value":"+999999999-12-31"}"#),
    ("date('0000-03-01')", r#"{"$type":"Date","_value":"0000-03-01"}"#),
    ("localtime('12:50:35.556')", r#"{"$type":"LocalTime","_value":"12:50:35.556"}"#),
    ("time('23:59:59.999999999-18:00')", r#"{"$type":"Time","_value":"23:59:59.999999999-18:00"}"#),
    (
        "localdatetime('1969-12-31T23:59:59.1')",
        r#"{"$type":"LocalDateTime","_value":"1969-12-31T23:59:59.1"}"#,
    ),
    (
        "datetime('2015-11-21T21:40:32.142+01:00')",
        r#"{"$type":"OffsetDateTime","_value":"2015-11-21T21:40:32.142+01:00"}"#,
    ),
    (
        "datetime('2015-11-21T21:40Z')",
        r#"{"$type":"OffsetDateTime","_value":"2015-11-21T21:40:00Z"}"#,
    ),
    (
        "datetime('-999999999-01-02T00:00:00+18:00')",
        r#"{"$type":"OffsetDateTime","_value":"-999999999-01-02T00:00:00+18:00"}"#,
    ),
    // The clock in London shows 01:30 twice on this day: both are kept apart.
    (
        "datetime('2015-10-25T01:30:00+01:00[Europe/London]')",
        r#"{"$type":"ZonedDateTime","_value":"2015-10-25T00:30:00Z[Europe/London]"}"#,
    ),
    (
        "datetime('2015-10-25T01:30:00Z[Europe/London]')",
        r#"{"$type":"ZonedDateTime","_value":"2015-10-25T01:30:00Z[Europe/London]"}"#,
    ),
    ("duration('P14M3DT16H12M')", r#"{"$type":"Duration","_value":"P14M3DT58320S"}"#),
    (
        "duration({months: -1, days: 2, seconds: -3, nanoseconds: -1})",
        r#"{"$type":"Duration","_value":"P-1M2DT-3.000000001S"}"#,
    ),
    ("point({x: 1.5, y: -0.0})", r#"{"$type":"Point","_value":"SRID=7203;POINT(1.5 -0.0)"}"#),
    (
        "point({x: 1, y: 2, z: 1e300})",
        r#"{"$type":"Point","_value":"SRID=9157;POINT Z(1.0 2.0 1e300)"}"#,
    ),
    (
        "point({longitude: 12.994, latitude: 55.6})",
        r#"{"$type":"Point","_value":"SRID=4326;POINT(12.994 55.6)"}"#,
    ),
    (
        "point({longitude: 1, latitude: 2, height: 3})",
        r#"{"$type":"Point","_value":"SRID=4979;POINT Z(1.0 2.0 3.0)"}"#,
    ),
    ("[]", "[]"),
    ("[1, 2]", "[1,2]"),
    ("[1.0, 0.0/0.0]", r#"[1.0,{"$type":"Float","_value":"NaN"}]"#),
    ("['a', 'b']", r#"["a","b"]"#),
    ("[true, false]", "[true,false]"),
    ("[date('2024-02-29')]", r#"[{"$type":"Date","_value":"2024-02-29"}]"#),
    ("[point({x: 1, y: 2})]", r#"[{"$type":"Point","_value":"SRID=7203;POINT(1.0 2.0)"}]"#),
];

#[test]
fn every_type_of_property_stands_in_records_as_it_is() {
    let Some(server) = shared() else { return };
    let mut wanted = Vec::new();
    for (at, (written, read)) in TYPES.iter().enumerate() {
        let statement = format!("CREATE (:Type {{key: {at}, value: {written}}})");
        server.cypher(&statement, json!({})).expect(written);
        wanted.push(format!(r#"{{"key":{at},"value":{{"key":{at},"value":{read}}}}}"#));
    }
    wanted.sort_unstable();
    let found = runtime().block_on(async {
        let store = options(&server).key("Type", ["key"]).connect().await?;
        read(&store, &PinRequest::new()).await
    });
    assert_eq!(found.unwrap().lines["Type"], wanted);
}

#[test]
fn parallel_relationships_and_loops_are_told_apart_whatever_order_they_were_made_in() {
    let Some(server) = shared() else { return };
    let rt = runtime();
    let mut all = Vec::new();
    for order in ["[3, 1, 1, 2]", "[1, 2, 3, 1]"] {
        server.clear().expect("empty");
        let made = format!(
            "CREATE (a:A {{k: 'a'}}), (b:B:A {{k: 'b'}}), (c {{`$type`: 1}}) \
             WITH a, b, c UNWIND {order} AS n CREATE (a)-[:R {{n: n}}]->(b) \
             WITH DISTINCT a, b, c CREATE (b)-[:R]->(a), (a)-[:R]->(a), (a)-[:R]->(a), (a)-[:`S ]`]->(c)"
        );
        server.cypher(&made, json!({})).expect("made");
        let found = rt.block_on(async {
            let store = options(&server).key("A", ["k"]).connect().await?;
            read(&store, &PinRequest::new()).await
        });
        let found = found.unwrap();
        assert_eq!(found.keys["A:B"], ["/k"]);
        assert_eq!(found.lines["A"], [r#"{"key":"a","value":{"k":"a"}}"#]);
        assert_eq!(found.lines["A:B"], [r#"{"key":"b","value":{"k":"b"}}"#]);
        let bare = &found.lines["()"][0];
        assert!(bare.ends_with(r#""value":{"$type":"Map","_value":{"$type":1}}}"#), "{bare}");
        assert_eq!(found.lines["[`S ]`]"].len(), 1);
        all.push(found.lines["[R]"].clone());
    }
    assert_eq!(all[0], all[1]);
    let line = |from: &str, to: &str, n: u32, properties: &str| {
        format!(
            r#"{{"key":[{from},{to},{n}],"value":{{"from":{from},"properties":{properties},"to":{to}}}}}"#
        )
    };
    let (a, b) = (r#"["A","a"]"#, r#"["A:B","b"]"#);
    let mut wanted = vec![
        line(a, b, 0, r#"{"n":1}"#),
        line(a, b, 1, r#"{"n":1}"#),
        line(a, b, 2, r#"{"n":2}"#),
        line(a, b, 3, r#"{"n":3}"#),
        line(b, a, 0, "{}"),
        line(a, a, 0, "{}"),
        line(a, a, 1, "{}"),
    ];
    wanted.sort_unstable();
    assert_eq!(all[0], wanted);
}

#[test]
fn a_node_with_very_many_relationships_is_read_in_bounded_memory() {
    let Some(server) = shared() else { return };
    // More than the adapter keeps of one node: the server sorts them.
    let text = "x".repeat(4000);
    let made = "CREATE (hub:Hub {k: 0}) WITH hub UNWIND range(1, 10000) AS k \
                CREATE (leaf:Leaf {k: k % 9999}), (hub)-[:R {t: $t, k: k}]->(leaf)";
    server.cypher(made, json!({ "t": text })).expect("made");
    server
        .cypher(
            "MATCH (h:Hub), (l:Leaf {k: 7}) CREATE (h)-[:R {k: 1}]->(l), (l)-[:R]->(h)",
            json!({}),
        )
        .expect("made");
    let found = runtime().block_on(async {
        let store = options(&server).connect().await?;
        read(&store, &PinRequest::new()).await
    });
    let found = found.unwrap();
    let there = server.cypher("MATCH ()-[r:R]->() RETURN count(r)", json!({})).expect("rows");
    assert_eq!(there, [json!([{"$type": "Integer", "_value": "10002"}])]);
    assert_eq!(found.lines["[R]"].len(), 10_002);
    let mut keys: Vec<_> =
        found.lines["[R]"].iter().map(|line| line.split(r#","value""#).next().unwrap()).collect();
    keys.dedup();
    assert_eq!(keys.len(), 10_002, "a key is there twice");
    assert_eq!(keys.iter().filter(|key| key.ends_with(",1]")).count(), 1);
    assert!(
        found.lines["[R]"].iter().map(String::len).sum::<usize>() > 8 * RecordBatch::TARGET_BYTES
    );
}

#[test]
fn constraints_and_indexes_of_every_kind_are_in_the_schema() {
    let Some(server) = shared() else { return };
    let first = ["CREATE CONSTRAINT c1 FOR (n:A) REQUIRE n.id IS UNIQUE"];
    let last = ["CREATE (:A {id: 1})-[:R {id: 1}]->(:B)"];
    for statement in first.into_iter().chain(RULES).chain(last) {
        server.cypher(statement, json!({})).expect(statement);
    }
    let (found, description) = runtime().block_on(async {
        let store = options(&server).connect().await.unwrap();
        (read(&store, &PinRequest::new()).await.unwrap(), store.describe().await.unwrap())
    });
    let names = |collection: &str, what: &str| -> Vec<String> {
        let objects = found.schemas[collection][what].as_array().unwrap().iter();
        objects.map(|object| object["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("A", "constraints"), ["c1", "c2"]);
    assert_eq!(names("A", "indexes"), ["i1", "i2", "i3", "i4"]);
    assert_eq!(names("B", "indexes"), ["i4", "i5"]);
    assert_eq!(names("[R]", "constraints"), ["c3"]);
    assert_eq!(names("[R]", "indexes"), ["i6", "i7"]);
    assert_eq!(names("(schema)", "constraints"), ["c1", "c2", "c3"]);
    let all = names("(schema)", "indexes");
    assert!(all.contains(&"empty `one".to_owned()), "{all:?}");
    assert_eq!(all.len(), 10, "with both lookups: {all:?}");
    let vector = &found.schemas["B"]["indexes"][1];
    assert_eq!(vector["type"], "VECTOR");
    assert_eq!(vector["options"]["indexProvider"], "vector-2.0");
    assert_eq!(vector["options"]["indexConfig"]["vector.dimensions"], 3);
    // The shorter constraint names the nodes.
    assert_eq!(found.lines["A"], [r#"{"key":1,"value":{"id":1}}"#]);
    assert_eq!(found.schemas["A"]["key"], json!(["id"]));

    assert_eq!(description.engine, "Neo4j");
    assert_eq!(description.metadata["edition"], "community");
    assert_eq!(description.metadata["database"], "neo4j");
    let collections: Vec<_> =
        description.collections.iter().map(|c| (c.name.as_str(), c.records)).collect();
    assert_eq!(collections, [("(schema)", None), ("A", Some(1)), ("B", Some(1)), ("[R]", Some(1))]);
}

#[test]
fn names_that_end_a_statement_do_not() {
    let Some(server) = shared() else { return };
    server.cypher("CREATE (:Keep)", json!({})).expect("made");
    let names =
        ["a`b", "`) DETACH DELETE n //", "a\\u0060) DETACH DELETE n //", "tab\there", "é😀"];
    for name in names {
        // The test's own way to quote: every character by its number.
        let quoted: String = name
            .encode_utf16()
            .map(|unit| match unit {
                0x60 => "``".to_owned(),
                _ => format!("\\u{unit:04x}"),
            })
            .collect();
        let statement = format!("CREATE (:`{quoted}` {{`{quoted}`: 1}})-[:`{quoted}`]->(:Keep)");
        server.cypher(&statement, json!({})).expect(name);
    }
    let rt = runtime();
    let store = rt.block_on(options(&server).connect()).unwrap();
    let whole = rt.block_on(read(&store, &PinRequest::new())).unwrap();
    let collections: Vec<_> = whole.lines.keys().cloned().collect();
    assert_eq!(collections.len(), 2 * names.len() + 1, "{collections:?}");
    for collection in collections {
        let mut request = PinRequest::new();
        request.collections = vec![collection.clone()];
        let one = rt.block_on(read(&store, &request)).unwrap();
        assert!(one.lines.keys().eq([&collection]));
        if !collection.starts_with('[') {
            assert_eq!(one.lines[&collection], whole.lines[&collection]);
        }
    }
    let keys = rt.block_on(async {
        let store = options(&server).key("Keep", names).connect().await?;
        read(&store, &PinRequest::new()).await
    });
    assert_eq!(keys.unwrap().lines["Keep"].len(), 1 + names.len());
    let left = server.cypher("MATCH (n:Keep) RETURN count(n)", json!({})).expect("rows");
    assert_eq!(left, [json!([{"$type": "Integer", "_value": "6"}])]);
}
