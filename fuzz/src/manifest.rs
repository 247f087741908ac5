//! Manifest, preamble, canonical and tagged JSON, keys and lines, from hostile text.

use backup_core::{
    manifest::{Manifest, Preamble},
    record::{Key, RecordBatch, canonical, tagged},
};

/// Reads the input as each of them; what was read prints and reads back to the same.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::from_json(data) {
        let text = manifest.to_json().unwrap();
        assert_eq!(Manifest::from_json(&text).unwrap(), manifest);
        assert_eq!(canonical::canonicalize(&text).unwrap().as_bytes(), text.trim_ascii_end());
    }
    if let Ok(preamble) = Preamble::from_json(data) {
        assert_eq!(Preamble::from_json(&preamble.to_json().unwrap()).unwrap(), preamble);
    }
    json(data);
    lines(data);
}

fn json(data: &[u8]) {
    let parsed = canonical::parse(data);
    let text = match canonical::canonicalize(data) {
        Ok(text) => text,
        Err(_) => return assert!(parsed.is_err()),
    };
    assert_eq!(canonical::canonicalize(text.as_bytes()).unwrap(), text);
    let value = parsed.unwrap();
    assert_eq!(canonical::parse(text.as_bytes()).unwrap(), value);
    let mut again = Vec::new();
    canonical::Writer::new(&mut again).value(&value).unwrap();
    assert_eq!(again, text.as_bytes());
    let _ = tagged::scalar(&value);
    assert_eq!(tagged::unescape(tagged::escape(value.clone())), value);
    let key = Key::from_json(&text).unwrap();
    assert_eq!(key.as_json(), text);
    let _ = key.scalars();
}

fn lines(data: &[u8]) {
    let Ok(batch) = RecordBatch::from_lines("c", data.to_vec().into()) else { return };
    let text: String = batch.iter().map(|record| format!("{}\n", record.line())).collect();
    assert_eq!(text.as_bytes(), data);
    for record in batch.iter() {
        let _ = record.key().scalars();
    }
}
