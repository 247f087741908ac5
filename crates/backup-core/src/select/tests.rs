use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::record::{BatchBuilder, ElementType, Key, RecordBatch, canonical};

fn fields() -> FieldMapping {
    let pointer = |text: &str| Some(text.to_owned());
    FieldMapping {
        project: pointer("/project"),
        tags: pointer("/tags"),
        created_at: pointer("/created"),
        other: [("lang".to_owned(), "/meta/lang".to_owned())].into(),
        ..FieldMapping::default()
    }
}

fn batch(values: &[Value]) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    let vector = builder.dense("text", ElementType::F32, 1);
    for (key, value) in values.iter().enumerate() {
        builder.push_json(&Key::from(key as i64), value.to_string().as_bytes()).unwrap();
        builder.set_f32(vector, &[key as f32]).unwrap();
    }
    builder.finish().unwrap()
}

fn says(error: &Error) -> String {
    format!("{error} | {}", error.advice())
}

fn filter(expression: &str) -> Filter {
    let selection = Selection::parse([expression]).unwrap_or_else(|e| panic!("{e}"));
    selection.filter("state", "notes", &fields()).unwrap()
}

// Whether a record of this value is taken.
fn takes(expression: &str, value: &Value) -> Result<bool> {
    Ok(filter(expression).batch(&batch(std::slice::from_ref(value)))?.len() == 1)
}

fn table(value: &Value, holds: &[&str], fails: &[&str]) {
    for (expressions, expected) in [(holds, true), (fails, false)] {
        for expression in expressions {
            assert_eq!(takes(expression, value).unwrap(), expected, "{expression} of {value}");
        }
    }
}

#[test]
fn conditions_look_into_values() {
    table(
        &json!({
            "n": 5, "f": 5.5, "t": "alpha beta", "b": true, "z": null, "a/b": {"~": 1}, "": 2,
            "list": ["x", 7, null], "five": "5",
            "big": {"$type": "Integer", "_value": "9007199254740993"},
            "nan": {"$type": "Float", "_value": "NaN"},
        }),
        &[
            "/n=5",
            "/n=5.0",
            "/n==5",
            "/n!=6",
            "/n<6",
            "/n<=5",
            "/n>4.9",
            "/n>=5",
            "/f>5",
            "/f<6",
            "/n in [4, 5]",
            "/t=\"alpha beta\"",
            "/t contains \"a b\"",
            "/t starts-with alpha",
            "/t<b",
            "/b=true",
            "/z=null",
            "/z missing",
            "/absent missing",
            "/n exists",
            "/absent!=5",
            "not /absent=5",
            "/a~1b/~0=1",
            "/=2",
            "/list contains 7",
            "/list contains x",
            "/list/0=x",
            "/list=[\"x\",7.0,null]",
            "/list contains null",
            "/five=\"5\"",
            "\"\" exists",
            "/big=9007199254740993",
            "/big>9007199254740992",
            "/big>9007199254740992.0",
            "/nan exists",
            "/n=5 and /b=true",
            "/n=6 or /b=true",
            "/n=6 and /n=6 or /b=true",
            "true",
            "not false",
            "/n=5 and (/n=6 or not /b=false)",
            "/a~1b={\"~\":1}",
            "not /n in [1, 2]",
            "not not /n=5",
        ],
        &[
            "/n=6",
            "/n=\"5\"",
            "/five=5",
            "/n<5",
            "/n>5",
            "/n<x",
            "/t<5",
            "/n in []",
            "/z exists",
            "/n missing",
            "/absent=null",
            "/absent<5",
            "/t contains alphabet",
            "/n contains 5",
            "/list contains 8",
            "/list=[7]",
            "/b=1",
            "/nan=1",
            "/nan<1",
            "/nan>=1",
            "/t=alpha",
            "/n starts-with \"5\"",
            "/big=9007199254740992",
            "/big<=9007199254740992.0",
            "false",
            "/n=6 and /b=true",
            "/n=5 and (/n=6 or /b=false)",
            "/a~1b={}",
            "/list/3 exists",
        ],
    );
}

#[test]
fn labels_are_texts_and_lists_have_one_that_fits() {
    table(
        &json!({"project": 12, "tags": ["red", "light blue", 3], "meta": {"lang": 3}}),
        &["project=12", "tag=red", "tag=\"light blue\"", "tags=3", "tag starts-with lig", "lang=3"],
        &["project=13", "tag=light", "tag contains re", "lang=\"3\"", "tag in [a, b]"],
    );
    table(
        &json!({"project": "12"}),
        &["project=12", "project in [1, 12]"],
        &["project=1", "tag=a"],
    );
    table(&json!({"project": ["a", "b"]}), &["project=b", "project contains b"], &["project=c"]);
    table(
        &json!({"tags": "red, green"}),
        &["tag=red", "tag=green"],
        &["tag=\"red, green\"", "tag=re"],
    );
    table(&json!({"tags": "[\"red, green\"]"}), &["tag=\"red, green\""], &["tag=red"]);
    table(&json!({"tags": 3}), &["tag=3", "tag contains 3"], &["tag=4"]);
    table(
        &json!({"tags": null, "project": null}),
        &["tag missing", "project!=a"],
        &["project=null"],
    );
}

#[test]
fn times_are_compared_as_moments_in_whatever_form() {
    let noon = [
        json!("2026-01-31T12:00:00Z"),
        json!("2026-01-31T13:00:00+01:00"),
        json!("2026-01-31 12:00:00"),
        json!("2026-01-31T13:00:00+01:00[Europe/Berlin]"),
        json!(1_769_860_800),
        json!(1_769_860_800.0),
        json!(1_769_860_800_000_i64),
        json!(1_769_860_800_000_000_i64),
        json!({"$type": "Integer", "_value": "1769860800000000000"}),
        json!({"$type": "OffsetDateTime", "_value": "2026-01-31T12:00:00Z"}),
    ];
    for time in noon {
        table(
            &json!({"created": time}),
            &[
                "created=2026-01-31",
                "created_at>=2026-01-31",
                "created<=2026-01-31",
                "created>2026-01-30",
                "created<2026-02-01",
                "created=2026-01-31T12:00:00Z",
                "created<=2026-01-31T12:00:00Z",
                "created>2026-01-31T12:00:00+01:00",
                "created in [2026-01-01, 2026-01-31]",
                "created exists",
            ],
            &[
                "created<2026-01-31",
                "created>2026-01-31",
                "created=2026-02-01",
                "created!=2026-01-31",
                "created<2026-01-31T12:00:00Z",
                "created>2026-01-31T12:00:00Z",
                "created missing",
            ],
        );
    }
    table(
        &json!({"created": null}),
        &["created missing", "created!=2026-01-31"],
        &["created<2027-01-01"],
    );
    table(
        &json!({"created": "2026-01-31"}),
        &["created<2026-01-31T00:00:01Z"],
        &["created>2026-01-31"],
    );
    table(&json!({"created": -1}), &["created=1969-12-31"], &["created>=1970-01-01"]);
    for wrong in
        [json!("yesterday"), json!(true), json!({}), json!("2026-01-31T12:00:00[Mars/One]")]
    {
        let error = takes("created<2026-01-31", &json!({"created": wrong})).unwrap_err();
        assert_eq!(
            says(&error),
            "a value is compared as a time and is none (state/notes, record 0: /created) | correct the record or the mapping, or choose by another field"
        );
    }
}

#[test]
fn a_filter_keeps_vectors_beside_their_records() {
    let values: Vec<_> = (0..5).map(|n| json!({"n": n})).collect();
    let all = batch(&values);
    let taken = filter("/n in [1, 3]").batch(&all).unwrap();
    let keys: Vec<_> = taken.iter().map(|record| record.key_json()).collect();
    assert_eq!(keys, ["1", "3"]);
    assert_eq!(taken.columns()[0].row_f32(1), [3.0]);
    // What is taken whole is not copied.
    assert_eq!(filter("/n<9").batch(&all).unwrap().text().as_ptr(), all.text().as_ptr());
    let everything = Selection::new().filter("state", "notes", &fields()).unwrap();
    assert!(everything.takes_everything());
    let others = filter("store=other");
    assert!(others.takes_nothing() && others.batch(&all).unwrap().is_empty());
}

#[test]
fn elements_are_not_chosen_one_by_one() {
    let mut builder = BatchBuilder::new("notes");
    let write = |json: &mut canonical::Writer<'_>| {
        json.integer(5);
        Ok(())
    };
    builder.push_element(&Key::from("hash"), &Key::from("field"), write).unwrap();
    let batch = builder.finish().unwrap();
    let error = filter("\"\"=5").batch(&batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let rewrite = Rewrite::new().set("/a", 1).unwrap().rewriter("s", "c", &fields()).unwrap();
    assert_eq!(rewrite.batch(&batch).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn names_choose_and_what_is_not_named_is_left_out() {
    let of = |expressions: &[&str]| Selection::parse(expressions).unwrap();
    let all = of(&[]);
    assert!(all.is_everything() && all.takes("a", "x") && all.takes_all_of("a"));
    let store = of(&["store=a"]);
    assert!(store.takes("a", "x") && store.takes_all_of("a") && !store.takes_store("b"));
    let some = of(&["collection=a/x", "collection in [a/y, b/x]"]);
    assert!(some.takes("a", "y") && some.takes_store("b") && !some.takes("a", "z"));
    assert!(!some.takes_all_of("a"));
    // The whole store holds its collections, in whichever order they are named.
    let whole = of(&["store=a"]);
    assert_eq!(of(&["collection=a/x", "store=a"]), whole);
    assert_eq!(of(&["store=a", "collection=a/x"]), whole);

    let known: BTreeMap<String, Vec<String>> =
        [("a".into(), vec!["x".into(), "y".into()]), ("b".into(), vec![])].into();
    assert!(of(&["store=b", "collection=a/x", "a/y: project=1"]).check_names(&known).is_ok());
    for (expression, expected) in [
        ("store=c", "there is no such store (c) | use one of these: a, b"),
        ("collection=a/z", "there is no such collection (a/z) | use one of these: x, y"),
        ("a/z: true", "there is no such collection (a/z) | use one of these: x, y"),
        ("c: true", "there is no such store (c) | use one of these: a, b"),
    ] {
        assert_eq!(says(&of(&[expression]).check_names(&known).unwrap_err()), expected);
    }
}

#[test]
fn rules_apply_where_they_say_and_all_of_them() {
    let selection =
        Selection::parse(["/n>1", "state: /n<9", "state/notes: /n!=5", "/n!=6"]).unwrap();
    let taken = |store, collection| {
        let values: Vec<_> = (0..10).map(|n| json!({"n": n})).collect();
        let filter = selection.filter(store, collection, &fields()).unwrap();
        let keys: Vec<_> = filter.batch(&batch(&values)).unwrap().iter().map(|r| r.key()).collect();
        keys.iter().map(|key| key.as_json().parse().unwrap()).collect::<Vec<i64>>()
    };
    assert_eq!(taken("state", "notes"), [2, 3, 4, 7, 8]);
    assert_eq!(taken("state", "more"), [2, 3, 4, 5, 7, 8]);
    assert_eq!(taken("other", "notes"), [2, 3, 4, 5, 7, 8, 9]);
    assert!(!selection.takes_all_of("other"));
    let scoped = Selection::parse(["state/notes: /n!=5"]).unwrap();
    assert!(scoped.takes_all_of("other") && !scoped.takes_all_of("state"));
}

#[test]
fn what_a_rule_cannot_look_into_is_refused_or_as_was_said() {
    let select = |choice: &str| {
        Selection::parse(["category=c or updated>2026-01-01", "project=a", choice]).unwrap()
    };
    let filter = |choice| select(choice).filter("state", "notes", &fields());
    assert_eq!(
        says(&filter("unmapped=refuse").unwrap_err()),
        "it is not known where the records have their category, updated_at (state/notes) | map the field for this collection; or leave such collections out with unmapped=leave-out, or take them whole with unmapped=whole"
    );
    assert!(filter("unmapped=leave-out").unwrap().takes_nothing());
    // What can be looked into still is.
    let taken = filter("unmapped=whole").unwrap();
    let taken = taken.batch(&batch(&[json!({"project": "b"}), json!({"project": "a"})])).unwrap();
    assert_eq!(taken.get(0).key_json(), "1");
    let whole = Selection::new().category("c").unmapped(Unmapped::Whole);
    assert!(whole.filter("state", "notes", &fields()).unwrap().takes_everything());
    assert_eq!(
        select("unmapped=refuse").takes_unreadable("uploads", None).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert!(!select("unmapped=leave-out").takes_unreadable("uploads", None).unwrap());
    assert!(select("unmapped=whole").takes_unreadable("uploads", None).unwrap());
    assert!(!Selection::new().store("a").takes_unreadable("uploads", None).unwrap());
    assert!(Selection::new().takes_unreadable("uploads", None).unwrap());
    let roots = Selection::parse(["collection=uploads/a", "state/notes: project=a"]).unwrap();
    assert!(roots.takes_unreadable("uploads", Some("a")).unwrap());
    assert!(roots.takes_unreadable("uploads", None).is_err(), "only one of its roots was named");
    assert!(!roots.takes_unreadable("uploads", Some("b")).unwrap());
    assert!(!roots.takes_unreadable("state", Some("notes")).unwrap());

    let mut fields = fields();
    fields.project = Some("project".into());
    assert_eq!(
        says(&Selection::new().project("a").filter("s", "c", &fields).unwrap_err()),
        "a field is mapped to something that is not a JSON pointer (s/c: project = \"project\") | begin it with /"
    );
}

#[test]
fn every_mistake_in_an_expression_has_its_place() {
    for (text, expected) in [
        ("", "a field is missing: a name, or a JSON pointer, which begins with / (, character 1)"),
        (
            "project",
            "here has to be one of = != < <= > >= in, contains, starts-with, exists, missing (project, character 8)",
        ),
        ("project=", "a value is missing (project=, character 9)"),
        (
            "title=two words",
            "this was not expected; a text with such characters stands in double quotes (title=two words, character 11)",
        ),
        ("title=\"open", "this is not JSON, or a quote is not closed (title=\"open, character 7)"),
        ("project in a", "here has to be a list, as in [a, b] (project in a, character 12)"),
        ("project in [a b]", "here has to be , or ] (project in [a b], character 15)"),
        ("(project=a", "here has to be ) ((project=a, character 11)"),
        (
            "project=a and",
            "a field is missing: a name, or a JSON pointer, which begins with / (project=a and, character 14)",
        ),
        (
            "pro:ject:x=1",
            "a field is a JSON pointer, which begins with /, or the name of one (pro:ject:x=1: ject:x)",
        ),
        (
            "/a~2=1",
            "in a JSON pointer, ~ is written as ~0 and a / within a name as ~1 (/a~2=1: /a~2)",
        ),
        (
            "created>=soon",
            "not a time: write 2026-01-31 or 2026-01-31T12:00:00Z (\"soon\") (created>=soon, character 10)",
        ),
        (
            "created>=2026",
            "not a time: write 2026-01-31 or 2026-01-31T12:00:00Z (\"2026\") (created>=2026, character 10)",
        ),
        (
            "created contains 2026",
            "a time is compared with =, <, <=, > or >= (created_at contains) (created contains 2026, character 18)",
        ),
        ("/a<true", "this takes a number or a text (/a <) (/a<true, character 4)"),
        ("/a starts-with 5", "this takes a text (/a starts-with) (/a starts-with 5, character 16)"),
        (
            "collection=notes",
            "a collection is named with its store, as in state/notes (collection=notes, character 17)",
        ),
        ("unmapped=maybe", "unmapped is refuse, leave-out or whole (unmapped=maybe, character 9)"),
        ("store=", "a name is missing (store=, character 7)"),
    ] {
        let error = Selection::parse([text]).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let deep = format!("{}/a=1{}", "(".repeat(1000), ")".repeat(1000));
    assert!(deep.parse::<Condition>().unwrap_err().to_string().starts_with("this is nested too"));
}

#[test]
fn json_is_one_form_and_what_is_not_a_selection_is_refused() {
    let selection = Selection::parse([
        "store=uploads",
        "collection=state/notes",
        "project=alpha and not tag in [y, x, x]",
        "state/notes: /n=null or /n missing",
        "unmapped=leave-out",
    ])
    .unwrap();
    let json = json!({
        "stores": {"state": ["notes"], "uploads": []},
        "rules": [
            {"where": {"all": [
                {"field": "project", "op": "=", "value": "alpha"},
                {"not": {"field": "tags", "op": "in", "value": ["x", "y"]}},
            ]}},
            {"store": "state", "collection": "notes", "where": {"any": [
                {"field": "/n", "op": "="},
                {"not": {"field": "/n", "op": "exists"}},
            ]}},
        ],
        "unmapped": "leave-out",
    });
    assert_eq!(serde_json::to_value(&selection).unwrap(), json);
    assert_eq!(serde_json::from_value::<Selection>(json).unwrap(), selection);
    // Written by hand, and read into the one form.
    let n = json!({"field": "/n", "op": "exists"});
    let rules = json!({"rules": [
        {"store": "b", "where": n}, {"where": {"all": [n]}}, {"store": "b", "where": n},
    ]});
    let read: Selection = serde_json::from_value(rules).unwrap();
    assert_eq!(read.expressions(), ["/n exists", "b: /n exists and /n exists"]);
    for wrong in [
        json!({"store": "a"}),
        json!({"rules": [{"where": {"field": "a b", "op": "=", "value": 1}}]}),
        json!({"rules": [{"where": {"field": "/a", "op": "~", "value": 1}}]}),
        json!({"rules": [{"where": {"field": "/a", "op": "in", "value": 1}}]}),
        json!({"rules": [{"where": {"field": "created_at", "op": "=", "value": "soon"}}]}),
        json!({"rules": [{"where": {"field": "/a", "op": "exists", "value": 1}}]}),
        json!({"rules": [{"where": {}}]}),
        json!({"rules": [{"collection": "c", "where": {"all": []}}]}),
        json!({"unmapped": "maybe"}),
    ] {
        assert!(serde_json::from_value::<Selection>(wrong.clone()).is_err(), "{wrong}");
    }
}

fn rewritten(rewrite: &Rewrite, value: Value) -> Result<Value> {
    let rewriter = rewrite.rewriter("state", "notes", &fields())?;
    let out = rewriter.batch(&batch(&[value]))?;
    assert_eq!(out.columns()[0].row_f32(0), [0.0]);
    Ok(serde_json::from_str(out.get(0).value_json()).unwrap())
}

#[test]
fn projects_are_renamed_wherever_they_stand() {
    let rewrite =
        Rewrite::new().parse_projects(["a=b", "b=a", "\"a/b\"=\"c d\"", "12=13"]).unwrap();
    for (from, to) in [
        (json!("a"), json!("b")),
        (json!("b"), json!("a")),
        (json!("a/b"), json!("c d")),
        (json!("c"), json!("c")),
        (json!(["a", "b", "x"]), json!(["b", "a", "x"])),
        (json!(12), json!(13)),
        (json!("12"), json!("13")),
        (json!(null), json!(null)),
        (json!({"a": "a"}), json!({"a": "a"})),
    ] {
        let record = |project: &Value| json!({"project": project, "tags": ["a"]});
        assert_eq!(rewritten(&rewrite, record(&from)).unwrap(), record(&to));
    }
    assert_eq!(rewritten(&rewrite, json!({})).unwrap(), json!({}));
    let to_text = Rewrite::new().rename_project("12", "x");
    assert_eq!(
        says(&rewritten(&to_text, json!({"project": 12})).unwrap_err()),
        "there is a number, and it would become a text (state/notes, record 0: /project) | give a number as the new value"
    );
    let rewriter = to_text.rewriter("s", "c", &FieldMapping::default()).unwrap();
    assert!(!rewriter.changes());
    let untouched = batch(&[json!({"project": "12"})]);
    assert_eq!(rewriter.batch(&untouched).unwrap().text().as_ptr(), untouched.text().as_ptr());
    assert!(Rewrite::new().parse_projects(["a/b=c"]).is_err());
}

#[test]
fn values_are_replaced_and_set() {
    let replace = Rewrite::new().replace("/n", 1, json!({"x": []})).unwrap();
    assert_eq!(rewritten(&replace, json!({"n": 1.0})).unwrap(), json!({"n": {"x": []}}));
    assert_eq!(rewritten(&replace, json!({"n": "1"})).unwrap(), json!({"n": "1"}));
    let null = Rewrite::new().replace("lang", Value::Null, "en").unwrap();
    assert_eq!(
        rewritten(&null, json!({"meta": {"lang": null}})).unwrap(),
        json!({"meta": {"lang": "en"}})
    );
    assert_eq!(rewritten(&null, json!({"meta": {}})).unwrap(), json!({"meta": {}}));
    let read: Rewrite = serde_json::from_value(serde_json::to_value(&null).unwrap()).unwrap();
    assert_eq!(read, null);

    let set = Rewrite::new().set("/a~1b/~0/c", json!({})).unwrap();
    let expected = json!({"a/b": {"~": {"c": {}}}});
    assert_eq!(rewritten(&set, json!({})).unwrap(), expected);
    assert_eq!(rewritten(&set, json!({"a/b": {"~": {"c": 5}}})).unwrap(), expected);
    assert!(rewritten(&set, json!({"a/b": 1})).is_err());
    let item = Rewrite::new().set("/l/1", 9).unwrap();
    assert_eq!(rewritten(&item, json!({"l": [1, 2]})).unwrap(), json!({"l": [1, 9]}));
    assert!(rewritten(&item, json!({"l": [1]})).is_err());
    let both = Rewrite::new().set("/a", 0).unwrap().replace("/a", 1, 2).unwrap();
    assert_eq!(rewritten(&both, json!({"a": 1})).unwrap(), json!({"a": 2}));
    assert_eq!(rewritten(&both, json!({"a": 5})).unwrap(), json!({"a": 0}));
}

#[test]
fn names_are_mapped_one_to_one() {
    let known: BTreeMap<String, Vec<String>> = [
        ("state".into(), vec!["old".into(), "new".into(), "a/b".into()]),
        ("vectors".into(), vec!["old".into()]),
    ]
    .into();
    let parse = |texts: &[&str]| NameMap::parse(texts);
    let names = parse(&[
        "state = vectors",
        "vectors=state",
        "state/old=new",
        "state/new=old",
        "state/a/b=\"c/d\"",
    ])
    .unwrap();
    names.check(&known).unwrap();
    assert_eq!((names.store("state"), names.store("vectors")), ("vectors", "state"));
    assert_eq!(names.collection("state", "old"), "new");
    assert_eq!(names.collection("state", "a/b"), "c/d");
    assert_eq!(names.collection("vectors", "old"), "old");
    assert!(NameMap::new().is_empty() && !names.is_empty());
    let read: NameMap = serde_json::from_value(serde_json::to_value(&names).unwrap()).unwrap();
    assert_eq!(read, names);

    for (texts, expected) in [
        (
            &["state=vectors"][..],
            "two get the same name (state and vectors: vectors) | give each another name",
        ),
        (
            &["state/old=new"],
            "two get the same name (state: old and new: new) | give each another name",
        ),
        (&["stat=x"], "there is no such store (stat) | use one of these: state, vectors"),
        (&["vectors/new=x"], "there is no such collection (vectors/new) | use one of these: old"),
        (&["state=\"\""], "a name cannot be empty (\"state\") | give each another name"),
        (&["state=a", "state=b"], "a name is given two others (state=b) | map each name once"),
    ] {
        let error = parse(texts).and_then(|names| names.check(&known)).unwrap_err();
        assert_eq!(says(&error), expected, "{texts:?}");
    }
    for (text, expected) in [
        ("state", "here has to be =, as in old=new (state, character 6)"),
        ("state=", "a name is missing (state=, character 7)"),
        ("=x", "a name is missing (=x, character 1)"),
        (
            "state/old=state/new",
            "after = stands only the new name; put one that has a / in quotes (state/old=state/new, character 20)",
        ),
        (
            "a=b=c",
            "this was not expected; a text with such characters stands in double quotes (a=b=c, character 4)",
        ),
    ] {
        assert_eq!(parse(&[text]).unwrap_err().to_string(), expected);
    }
}

// Values of few kinds, so that conditions often meet what they ask for.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        (-2_i64..3).prop_map(|n| json!(n as f64 / 2.0)),
        "[ab5 ,\"é]{0,3}".prop_map(Value::from),
        Just(json!("true")),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[ab~/ =]{0,2}", inner, 0..3)
                .prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

fn records() -> impl Strategy<Value = Value> {
    let label = prop_oneof![
        Just(Value::Null),
        (1_i64..3).prop_map(Value::from),
        "[12]".prop_map(Value::from),
        prop::collection::vec("[12]", 0..3).prop_map(Value::from),
    ];
    let day = prop_oneof![
        (0_i64..4).prop_map(|day| json!(day * 86_400)),
        (0_i64..4).prop_map(|day| json!(format!("1970-01-0{}T00:00:00Z", day + 1))),
    ];
    let own = prop::collection::btree_map("[ab~/ =]{0,2}", values(), 0..4);
    (label.clone(), label, prop::option::of(day), own).prop_map(|(project, tags, day, own)| {
        let mut record: serde_json::Map<_, _> = own.into_iter().collect();
        record.insert("project".into(), project);
        record.insert("tags".into(), tags);
        day.map(|day| record.insert("created".into(), day));
        Value::Object(record)
    })
}

fn tests() -> impl Strategy<Value = Condition> {
    use Op::{AtLeast, AtMost, Contains, Equals, Exists, Greater, In, Less, StartsWith};
    let pointer = prop::collection::vec("[ab~/ =]{0,2}", 0..3).prop_map(|names| {
        let names = names.iter().map(|name| name.replace('~', "~0").replace('/', "~1"));
        names.map(|name| format!("/{name}")).collect::<String>()
    });
    let one = (pointer, prop::sample::select(&[Equals, Contains][..]), values());
    let one = one.prop_map(|(field, op, value)| Condition::new(&field, op, value));
    let ordered =
        prop_oneof![(-2_i64..3).prop_map(Value::from), "[ab5]{0,2}".prop_map(Value::from)];
    let order = ("/[ab]", prop::sample::select(&[Less, AtMost, Greater, AtLeast][..]), ordered)
        .prop_map(|(field, op, value)| Condition::new(&field, op, value));
    let list = ("/[ab]", prop::collection::vec(values(), 0..3))
        .prop_map(|(field, items)| Condition::new(&field, In, items));
    let label = (
        prop::sample::select(&["project", "tags", "tag"][..]),
        prop::sample::select(&[Equals, Contains, StartsWith, Less, AtLeast][..]),
        "[12]",
    )
        .prop_map(|(field, op, value)| Condition::new(field, op, value));
    let time =
        (prop::sample::select(&[Equals, Less, AtMost, Greater, AtLeast][..]), 1..4, any::<bool>())
            .prop_map(|(op, day, whole)| {
                let hour = if whole { "" } else { "T00:00:00Z" };
                Condition::new("created", op, format!("1970-01-0{day}{hour}"))
            });
    let exists = "/[ab]|project|created".prop_map(|field| Condition::new(&field, Exists, ()));
    prop_oneof![3 => one, 3 => order, 1 => list, 2 => label, 2 => time, 1 => exists]
        .prop_map(Result::unwrap)
}

fn conditions() -> impl Strategy<Value = Condition> {
    tests().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::All),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::Any),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

/// What the documentation says, in the plainest way.
fn model(condition: &Condition, record: &Value) -> bool {
    let test = match condition {
        Condition::All(items) => return !items.iter().any(|item| !model(item, record)),
        Condition::Any(items) => return items.iter().any(|item| model(item, record)),
        Condition::Not(inner) => return !model(inner, record),
        Condition::Test(test) => test,
    };
    let wanted = test.value();
    let number = |value: &Value| value.as_f64();
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && (0..a.len()).all(|i| same(&a[i], &b[i]))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.keys().eq(b.keys()) && a.keys().all(|name| same(&a[name], &b[name]))
            }
            (a, b) => a == b,
        }
    }
    let ordered = |order: Option<std::cmp::Ordering>| match (order, test.op()) {
        (None, _) => false,
        (Some(order), Op::Less) => order.is_lt(),
        (Some(order), Op::AtMost) => order.is_le(),
        (Some(order), Op::Greater) => order.is_gt(),
        (Some(order), Op::AtLeast) => order.is_ge(),
        (Some(order), _) => order.is_eq(),
    };
    let name = test.field().as_str();
    let found = match name {
        "project" | "tags" => Some(&record[name]),
        "created_at" => record.get("created"),
        pointer => record.pointer(pointer),
    };
    let Some(found) = found else { return false };
    if test.op() == Op::Exists {
        return !found.is_null();
    }
    if name == "created_at" {
        // Days since 1970.
        let day = match found {
            Value::Number(seconds) => seconds.as_i64().unwrap() / 86_400,
            text => text.as_str().unwrap()[9..10].parse::<i64>().unwrap() - 1,
        };
        let text = wanted.as_str().unwrap();
        let asked: i64 = text[9..10].parse::<i64>().unwrap() - 1;
        return ordered(Some(day.cmp(&asked)));
    }
    if name == "project" || name == "tags" {
        let items = match found {
            Value::Array(items) => items.clone(),
            one => vec![one.clone()],
        };
        let texts = items.iter().filter(|item| !item.is_null());
        let mut texts = texts.map(|item| item.to_string().replace('"', ""));
        let wanted = wanted.as_str().unwrap();
        return texts.any(|text| match test.op() {
            Op::StartsWith => text.starts_with(wanted),
            Op::Contains => text == wanted,
            _ => ordered(Some(text.as_str().cmp(wanted))),
        });
    }
    match test.op() {
        Op::Equals => same(found, wanted),
        Op::In => wanted.as_array().unwrap().iter().any(|item| same(found, item)),
        Op::Contains => match found {
            Value::Array(items) => items.iter().any(|item| same(item, wanted)),
            Value::String(text) => wanted.as_str().is_some_and(|wanted| text.contains(wanted)),
            _ => false,
        },
        _ => ordered(match (found, wanted) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) => number(a).and_then(|a| a.partial_cmp(&number(b)?)),
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_filter_takes_what_the_model_takes(
        condition in conditions(),
        values in prop::collection::vec(records(), 0..5),
    ) {
        let filter = Selection::new().matching(condition.clone());
        let filter = filter.filter("state", "notes", &fields()).unwrap();
        let taken = filter.batch(&batch(&values)).unwrap();
        let keys: Vec<_> = taken.iter().map(|record| record.key_json().to_owned()).collect();
        let expected = values.iter().enumerate().filter(|(_, value)| model(&condition, value));
        prop_assert_eq!(keys, expected.map(|(key, _)| key.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn text_and_json_read_back_to_the_same_selection(
        names in prop::collection::vec(("[ab/ \"=é]{0,3}", prop::option::of("[ab/:]{0,3}")), 0..4),
        rules in prop::collection::vec((prop::option::of(("[ab:/]{0,2}", prop::option::of("[ab/ ]{0,2}"))), conditions()), 0..3),
        unmapped in prop::sample::select(&[Unmapped::Refuse, Unmapped::LeaveOut, Unmapped::Whole][..]),
    ) {
        let mut selection = Selection::new().unmapped(unmapped);
        for (store, collection) in names {
            selection = match collection {
                None => selection.store(store),
                Some(collection) => selection.collection(store, collection),
            };
        }
        for (place, condition) in rules {
            selection = match place {
                None => selection.matching(condition),
                Some((store, collection)) => {
                    selection.matching_in(store, collection.as_deref(), condition)
                }
            };
        }
        let text = selection.expressions();
        let read = Selection::parse(&text);
        prop_assert!(read.is_ok(), "{text:?}: {read:?}");
        prop_assert_eq!(read.unwrap(), selection.clone(), "{:?}", text);
        let json = serde_json::to_string(&selection).unwrap();
        prop_assert_eq!(serde_json::from_str::<Selection>(&json).unwrap(), selection);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ab/=<>!()\\[\\]\",: é]{0,12}|\\PC{0,12}") {
        let _ = Selection::parse([&text]);
        let _ = NameMap::parse([&text]);
    }
}
