//! The kit's data.

use std::collections::BTreeMap;

use backup_core::{
    EntryPath,
    record::{ElementType, Key, RecordBatch, VectorColumn, VectorShape, tagged::Scalar},
};
use bytes::Bytes;

use crate::{
    dataset::{Dataset, Item, MARK, Node, Row, Rows, Tree},
    harness::{Asked, Harness},
    kit::Kit,
};

/// Text that ends a quotation, a statement, a path or a string where it is not quoted.
pub(crate) const HOSTILE: [&str; 17] = [
    "two words",
    "quote\"double",
    "quote'single",
    "back`tick",
    "x; DROP TABLE notes; --",
    "x' OR '1'='1",
    "\"; DELETE FROM notes; --",
    "`) DETACH DELETE n //",
    "[bracket]",
    "per%cent_under",
    "line\nfeed\ttab",
    "../../etc/passwd",
    "back\\slash",
    "$type",
    "{brace}:*?",
    "ünïcödé 😀",
    "select",
];

/// Pairs that some stores take for one name.
pub(crate) const TWINS: [(&str, &str); 3] =
    [("twin", "TWIN"), ("caf\u{e9}", "cafe\u{301}"), ("name", "name ")];

pub(crate) fn text(value: &str) -> Scalar {
    Scalar::Text(value.to_owned())
}

/// A row whose mark and number are made of `collection` and `number`.
pub(crate) fn row(collection: &str, number: i64, key: Key) -> Row {
    let fields = [
        (MARK.to_owned(), text(&format!("{collection} {number:06}"))),
        ("number".to_owned(), Scalar::Integer(number.into())),
    ];
    Row { key, element: None, fields: BTreeMap::from(fields), vectors: Vec::new() }
}

pub(crate) fn rows(name: &str, count: i64) -> Rows {
    let rows = (1..=count).map(|number| row(name, number, Key::from(number))).collect();
    Rows { name: name.to_owned(), rows }
}

/// A few records and files.
pub(crate) fn standard<H: Harness>(kit: &Kit<'_, H>) -> Dataset {
    let mut data = records(kit, [rows("notes", 25)]);
    if kit.can.collections {
        data.collections.extend(records(kit, [rows("people", 3)]).collections);
    }
    with_trees(kit, &mut data, small_tree());
    fitting(kit, data)
}

/// Another content than [`standard`], in part of the same names.
pub(crate) fn other<H: Harness>(kit: &Kit<'_, H>) -> Dataset {
    let mut notes = rows("notes", 4);
    notes.rows.remove(1);
    notes.rows[0].fields.insert("number".to_owned(), Scalar::Integer(-1));
    let mut data = records(kit, [notes]);
    if kit.can.collections {
        data.collections.extend(records(kit, [rows("elsewhere", 2)]).collections);
    }
    let items = vec![
        file("a.txt", b"another text", 0o600),
        directory("only here"),
        file("only here/b.txt", b"b", 0o644),
    ];
    with_trees(kit, &mut data, items);
    fitting(kit, data)
}

/// Collections, where the store takes any, under the name that it has for them.
pub(crate) fn records<H: Harness>(
    kit: &Kit<'_, H>,
    collections: impl IntoIterator<Item = Rows>,
) -> Dataset {
    let collections = collections.into_iter().filter(|_| kit.takes_rows());
    let named = collections.map(|rows| Rows { name: kit.collection(&rows.name), ..rows });
    Dataset { collections: named.collect(), trees: Vec::new() }
}

/// The same items in every root, where the store takes any.
pub(crate) fn with_trees<H: Harness>(kit: &Kit<'_, H>, data: &mut Dataset, items: Vec<Item>) {
    if kit.can.entries {
        let tree = |root| Tree { root, items: items.clone() };
        data.trees = kit.harness.roots().into_iter().map(tree).collect();
    }
}

fn small_tree() -> Vec<Item> {
    vec![
        file("a.txt", b"some text", 0o644),
        directory("empty"),
        directory("folder"),
        file("folder/deep.bin", &[0, 1, 2, 255], 0o600),
        file("folder/none", b"", 0o755),
        symlink("link", b"folder/deep.bin"),
    ]
}

/// One record and one file that are longer than a batch.
pub(crate) fn long<H: Harness>(kit: &Kit<'_, H>) -> Dataset {
    let mut long = rows("long", 3);
    let value = "0123456789abcdef".repeat(RecordBatch::TARGET_BYTES / 16 + 4096);
    for (number, row) in long.rows.iter_mut().enumerate() {
        let value = if number == 1 { text(&value) } else { text("short") };
        row.fields.insert("body".to_owned(), value);
    }
    let mut data = records(kit, [long]);
    let bytes: Vec<u8> =
        (0..2 * RecordBatch::TARGET_BYTES as u32 + 77).map(|i| (i % 251) as u8).collect();
    with_trees(kit, &mut data, vec![file("long.bin", &bytes, 0o644)]);
    fitting(kit, data)
}

/// Keys of every type, each in a collection of its own.
pub(crate) fn odd_keys() -> Vec<Rows> {
    let integers = [0, -1, 1, 1 << 53, (1 << 53) + 1, i64::MIN, i64::MAX, -(1 << 53) - 1];
    let mut texts =
        vec!["", " ", "null", "1", "1.0", "true", "nul\0inside", "\u{feff}", "\u{10ffff}"];
    texts.extend(HOSTILE);
    texts.extend(TWINS.iter().flat_map(|(a, b)| [*a, *b]));
    let long = "k".repeat(5000);
    texts.push(&long);
    let bytes: [&[u8]; 4] = [&[], &[0], &[0xff, 0xfe], b"text"];
    let composites = [("a", 1), ("a", -1), ("", 1), ("x', 1) --", i64::MAX)];
    let all: [(&str, Vec<Key>); 4] = [
        ("integer keys", integers.into_iter().map(Key::from).collect()),
        ("text keys", texts.into_iter().map(Key::from).collect()),
        ("bytes keys", bytes.into_iter().map(Key::bytes).collect()),
        (
            "composite keys",
            composites
                .into_iter()
                .map(|(a, b)| Key::composite([Key::from(a), Key::from(b)]))
                .collect(),
        ),
    ];
    all.into_iter()
        .map(|(name, keys)| {
            let rows = (1..).zip(keys).map(|(number, key)| row(name, number, key)).collect();
            Rows { name: name.replace(' ', "_"), rows }
        })
        .collect()
}

/// Values of every type, and text that would do harm where it is not bound.
pub(crate) fn odd_values() -> Rows {
    let mut values = vec![
        Scalar::Null,
        Scalar::Bool(true),
        Scalar::Bool(false),
        Scalar::Integer(0),
        Scalar::Integer((1 << 53) + 1),
        Scalar::Integer(i64::MIN.into()),
        Scalar::Integer(i64::MAX.into()),
        Scalar::Float(0.1),
        Scalar::Float(-0.0),
        Scalar::Float(1.0),
        Scalar::Float(5e-324),
        Scalar::Float(f64::MAX),
        Scalar::Float(9_007_199_254_740_993.0),
        Scalar::Float(f64::NAN),
        Scalar::Float(f64::INFINITY),
        Scalar::Float(f64::NEG_INFINITY),
        Scalar::Bytes(Vec::new()),
        Scalar::Bytes((0..=255).collect()),
        text(""),
        text("nul\0inside"),
        text("\u{0}\u{1}\u{1f}\u{7f}"),
        text("{\"$type\":\"Base64\",\"_value\":\"AAE=\"}"),
        text("1"),
        text("null"),
        text("\u{feff}\u{202e}\u{10ffff}"),
    ];
    values.extend(HOSTILE.map(text));
    values.extend(TWINS.iter().flat_map(|(a, b)| [text(a), text(b)]));
    let mut odd = rows("values", 0);
    odd.rows = (1..)
        .zip(values)
        .map(|(number, value)| {
            let mut row = row("values", number, Key::from(number));
            row.fields.insert("value".to_owned(), value);
            row
        })
        .collect();
    odd
}

/// Fields of every name.
pub(crate) fn odd_fields() -> Rows {
    let mut odd = rows("fields", 3);
    for row in &mut odd.rows {
        for name in HOSTILE {
            row.fields.insert(name.to_owned(), text(&format!("value of {name}")));
        }
    }
    odd
}

/// What sets two vector columns of one shape apart.
type Form = (&'static str, ElementType);

/// Vectors of the shapes that are declared, some records with none.
pub(crate) fn vectors<H: Harness>(kit: &Kit<'_, H>) -> Rows {
    let forms: [Form; 3] =
        [("f32", ElementType::F32), ("f16", ElementType::F16), ("u8", ElementType::U8)];
    let bytes = |number: i64, count: usize, element: ElementType| -> Vec<u8> {
        let value = |i: usize| (number as usize * 7 + i * 3) % 100;
        (0..count)
            .flat_map(|i| match element {
                ElementType::F32 => (value(i) as f32 / 8.0 - 3.0).to_le_bytes().to_vec(),
                // Any bits below infinity's are a number.
                ElementType::F16 => (0x3000 + value(i) as u16).to_le_bytes().to_vec(),
                _ => vec![value(i) as u8],
            })
            .collect()
    };
    let column = |name: String, element, shape, data: Vec<u8>| {
        VectorColumn::from_arrays(name, element, shape, data.into(), None, 1)
            .expect("the arrays are made to agree")
    };
    // Short enough for any store's limit, and told apart by what must be quoted.
    let names = HOSTILE.into_iter().filter(|_| kit.can.dense_vectors);
    let mut rows = rows("vectors", 20);
    for (row, number) in rows.rows.iter_mut().zip(0_i64..) {
        for (form, element) in forms {
            if kit.can.dense_vectors && number % 5 != 3 {
                let (name, shape) = (format!("dense-{form}"), VectorShape::Dense { dim: 4 });
                row.vectors.push(column(name, element, shape, bytes(number, 4, element)));
            }
            if kit.can.multi_vectors && number % 5 != 2 {
                let count = 1 + number as usize % 3;
                let shape = VectorShape::Multi { dim: 3, offsets: vec![0, count as u64] };
                let data = bytes(number, 3 * count, element);
                row.vectors.push(column(format!("multi-{form}"), element, shape, data));
            }
            if kit.can.sparse_vectors && number % 5 != 1 {
                let indices: Vec<u32> = (0..=number as u32 % 4).map(|i| i * 1000 + 3).collect();
                let data = bytes(number, indices.len(), element);
                let offsets = vec![0, indices.len() as u64];
                let shape = VectorShape::Sparse { offsets, indices };
                row.vectors.push(column(format!("sparse-{form}"), element, shape, data));
            }
        }
        for name in names.clone() {
            let (element, shape) = (ElementType::F32, VectorShape::Dense { dim: 2 });
            row.vectors.push(column(name.to_owned(), element, shape, bytes(number, 2, element)));
        }
    }
    rows
}

/// Records that have elements.
pub(crate) fn elements() -> Rows {
    let mut all = Vec::new();
    for key in ["small", "large"] {
        let count = if key == "large" { 3000 } else { 2 };
        all.extend((0..count).map(|number: i64| Row {
            element: Some(Key::from(format!("field {number}").as_str())),
            fields: BTreeMap::from([(MARK.to_owned(), text(&format!("{key} {number}")))]),
            ..row(key, number, Key::from(key))
        }));
    }
    Rows { name: "elements".to_owned(), rows: all }
}

/// Files of every name and kind.
pub(crate) fn odd_tree() -> Vec<Item> {
    let long = "n".repeat(255);
    let mut names: Vec<Vec<u8>> = [
        "...",
        " ",
        "-rf",
        "CON",
        "nul.txt",
        "trailing dot.",
        "new\nline",
        "tab\tb",
        "*?<>|:\"",
        "back\\slash",
        "caf\u{e9}",
        "cafe\u{301}",
        "Case",
        "case",
        ".hidden",
        "~",
        "$HOME",
        &long,
    ]
    .map(|name| name.as_bytes().to_vec())
    .into();
    names.push(vec![b'b', 0xff, 0xfe]);
    let mut items: Vec<Item> = names
        .iter()
        .map(|name| item(name, 0o644, Node::File(Bytes::copy_from_slice(name))))
        .collect();
    let mut deep = String::from("deep");
    items.push(directory(&deep));
    for _ in 0..30 {
        deep.push_str("/deeper");
        items.push(directory(&deep));
    }
    items.push(file(&format!("{deep}/bottom"), b"here", 0o400));
    items.push(symlink("to-nowhere", b"does/not/exist"));
    items.push(symlink("to-outside", b"/etc/hostname"));
    items.push(symlink("to-itself", b"to-itself"));
    items.push(symlink("to-folder", b"deep"));
    items
}

pub(crate) fn file(path: &str, bytes: &[u8], mode: u32) -> Item {
    item(path.as_bytes(), mode, Node::File(Bytes::copy_from_slice(bytes)))
}

pub(crate) fn directory(path: &str) -> Item {
    item(path.as_bytes(), 0o755, Node::Directory)
}

pub(crate) fn symlink(path: &str, target: &[u8]) -> Item {
    item(path.as_bytes(), 0o777, Node::Symlink(target.to_vec()))
}

fn item(path: &[u8], mode: u32, node: Node) -> Item {
    let path = EntryPath::new(path).expect("the kit's paths are plain");
    Item { path, mode, modified: (1_600_000_000, 123_456_000), node }
}

/// Leaves out what the store cannot hold, with a note of it.
pub(crate) fn fitting<H: Harness>(kit: &Kit<'_, H>, mut data: Dataset) -> Dataset {
    let holds = |asked: Asked<'_>| {
        let holds = kit.harness.holds(asked);
        if !holds {
            let what = format!("{asked:?}");
            kit.note(format!("not held: {}", crate::reading::cut(&what)));
        }
        holds
    };
    data.collections.retain(|collection| holds(Asked::Collection(&collection.name)));
    for collection in &mut data.collections {
        collection.rows.retain(|row| holds(Asked::Key(&row.key)));
        collection.rows.retain(|row| row.fields.values().all(|v| holds(Asked::Value(v))));
        for row in &mut collection.rows {
            row.fields.retain(|name, _| holds(Asked::Field(name)));
            row.vectors.retain(|vector| holds(Asked::Vector(vector)));
        }
    }
    for tree in &mut data.trees {
        tree.items.retain(|item| {
            holds(Asked::Path(&item.path))
                && (!matches!(item.node, Node::Symlink(_)) || holds(Asked::Symlinks))
        });
        tree.items.sort_by(|a, b| a.path.cmp(&b.path));
    }
    data
}
