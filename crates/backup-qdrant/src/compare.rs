//! Settings that were asked for, compared with those that a server or an engine has.

use serde_json::Value;

/// Each member of `wanted` that is not in `found`, with both values; what was not asked for
/// does not count.
pub(crate) fn differences(wanted: &Value, found: &Value, path: &str) -> Vec<String> {
    match (wanted, found) {
        // Not set: the default.
        (Value::Null, _) => Vec::new(),
        (Value::Object(wanted), Value::Object(found)) => wanted
            .iter()
            .flat_map(|(name, value)| {
                let other = found.get(name).unwrap_or(&Value::Null);
                differences(value, other, &format!("{path}/{name}"))
            })
            .collect(),
        (wanted, found) if equal(wanted, found) => Vec::new(),
        (wanted, found) => vec![format!("{path} is {found} and not {wanted}")],
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Object(a), Value::Null) => a.is_empty(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_was_asked_for_counts() {
        let wanted = json!({"a": {"x": 1, "y": null, "z": {}}, "b": [1, 2]});
        let same = json!({"a": {"x": 1.0, "y": 3}, "b": [1, 2], "c": true});
        assert!(differences(&wanted, &same, "").is_empty());
        let other = json!({"a": {"x": 2}, "b": [1]});
        assert_eq!(
            differences(&wanted, &other, ""),
            ["/a/x is 2 and not 1", "/b is [1] and not [1,2]"]
        );
    }
}
