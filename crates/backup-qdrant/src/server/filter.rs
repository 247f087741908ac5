//! Conditions of a selection as a filter of the server's: so that it sends less.
//!
//! The engine looks at every record in any case. So a filter may let through too much; it must
//! never hold back a point whose record the engine would take. What the server would see
//! otherwise than the engine is not asked of it: times, parts of texts, whether something is there,
//! everything behind `not`; a name that is no plain word; a field with an index that does not
//! have all values, as one of integers has no `5.0`.

use std::collections::BTreeMap;

use backup_core::{
    Condition, Op,
    manifest::FieldMapping,
    record::tagged::{self, Scalar},
    select::{Kind, Test},
};
use qdrant_client::qdrant::{self as proto, Filter, Range};
use serde_json::Value;

/// A filter that no point fails whose record fulfils all conditions; `None` where there is none
/// but that all pass.
pub(super) fn superset<'c>(
    conditions: impl Iterator<Item = &'c Condition>,
    fields: &FieldMapping,
    indexes: &BTreeMap<String, Value>,
) -> Option<Filter> {
    let place = Place { fields, indexes };
    let must: Vec<_> = conditions.filter_map(|condition| place.condition(condition)).collect();
    (!must.is_empty()).then(|| Filter::must(must))
}

/// What is known of a collection.
struct Place<'a> {
    fields: &'a FieldMapping,
    indexes: &'a BTreeMap<String, Value>,
}

impl Place<'_> {
    fn condition(&self, condition: &Condition) -> Option<proto::Condition> {
        match condition {
            Condition::All(items) => {
                let must: Vec<_> = items.iter().filter_map(|item| self.condition(item)).collect();
                (!must.is_empty()).then(|| Filter::must(must).into())
            }
            Condition::Any(items) => {
                any(items.iter().map(|item| self.condition(item)).collect::<Option<_>>()?)
            }
            Condition::Test(test) => self.test(test),
            _ => None,
        }
    }

    fn test(&self, test: &Test) -> Option<proto::Condition> {
        let field = test.field();
        let key = key(field.pointer(self.fields)?)?;
        let value = test.value();
        let each = |one: &dyn Fn(&Value) -> Option<proto::Condition>| match test.op() {
            Op::Equals => one(value),
            Op::In => any(value.as_array()?.iter().map(one).collect::<Option<_>>()?),
            _ => None,
        };
        match field.kind() {
            Kind::Label => each(&|value| self.text(&key, word(value)?)),
            Kind::Tags if test.op() == Op::Contains => self.tag(&key, word(value)?),
            Kind::Tags => each(&|value| self.tag(&key, word(value)?)),
            Kind::Json => match test.op() {
                Op::Less | Op::AtMost => self.range(&key, None, number(value)),
                Op::Greater | Op::AtLeast => self.range(&key, number(value), None),
                _ => each(&|value| self.equal(&key, value)),
            },
            _ => None,
        }
    }

    fn equal(&self, key: &str, value: &Value) -> Option<proto::Condition> {
        match value {
            Value::Bool(flag) if self.is_indexed_as(key, "bool") => {
                Some(proto::Condition::matches(key, *flag))
            }
            Value::String(text) => self.text(key, text),
            value => self.range(key, number(value), number(value)),
        }
    }

    fn text(&self, key: &str, text: &str) -> Option<proto::Condition> {
        let known = self.is_indexed_as(key, "keyword");
        known.then(|| proto::Condition::matches(key, text.to_owned()))
    }

    /// A tag may stand in a text with others: between commas, or in a list that is JSON, where a
    /// character may be written as its number.
    fn tag(&self, key: &str, tag: &str) -> Option<proto::Condition> {
        let escaped = |c: char| c.is_control() || matches!(c, '"' | '\\' | '/');
        if tag.is_empty() || tag.contains(escaped) || self.indexes.contains_key(key) {
            return None;
        }
        any(vec![
            proto::Condition::matches(key, tag.to_owned()),
            proto::Condition::matches_text(key, tag),
            proto::Condition::matches_text(key, "\\u"),
        ])
    }

    // Both ends are let in: the server rounds, which may make two numbers one.
    fn range(&self, key: &str, low: Option<f64>, high: Option<f64>) -> Option<proto::Condition> {
        if !self.is_indexed_as(key, "float") || (low.is_none() && high.is_none()) {
            return None;
        }
        Some(proto::Condition::range(key, Range { gte: low, lte: high, ..Range::default() }))
    }

    /// Whether an index, if there is one, is of a type that has all values.
    fn is_indexed_as(&self, key: &str, wanted: &str) -> bool {
        self.indexes.get(key).is_none_or(|index| {
            let kind = index.as_str().or_else(|| index.get("type")?.as_str());
            kind == Some(wanted)
        })
    }
}

fn any(should: Vec<proto::Condition>) -> Option<proto::Condition> {
    // Without one all would pass.
    (!should.is_empty()).then(|| Filter::should(should).into())
}

/// A text that is not also how a number or a truth value is written: those count as texts.
fn word(value: &Value) -> Option<&str> {
    let text = value.as_str()?;
    let plain = text.parse::<f64>().is_err() && !matches!(text, "true" | "false");
    plain.then_some(text)
}

fn number(value: &Value) -> Option<f64> {
    match tagged::scalar(value)? {
        Scalar::Integer(number) => Some(number as f64),
        Scalar::Float(number) if number.is_finite() => Some(number),
        _ => None,
    }
}

/// A pointer as the server's path: plain words only, which no list has as a place and no value
/// that JSON lacks as a member.
fn key(pointer: &str) -> Option<String> {
    let names: Vec<&str> = pointer.strip_prefix('/')?.split('/').collect();
    let plain = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    names.iter().all(plain).then(|| names.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filter(condition: &str, indexes: Value) -> Option<Filter> {
        let condition: Condition = condition.parse().expect("a condition");
        let mut fields = FieldMapping::default();
        fields.project = Some("/meta/project".to_owned());
        fields.tags = Some("/tags".to_owned());
        fields.created_at = Some("/at".to_owned());
        let indexes = indexes.as_object().cloned().unwrap_or_default().into_iter().collect();
        superset([&condition].into_iter(), &fields, &indexes)
    }

    #[test]
    fn what_the_server_sees_otherwise_is_not_asked_of_it() {
        for pushed in [
            "project=alpha",
            "project in [alpha, beta]",
            "tag=x",
            "/n<5",
            "/n=5",
            "/a/b=text",
            "/flag=true",
            "project=alpha and created>=2026-01-01",
            "project=alpha or /n>=1.5",
        ] {
            assert!(filter(pushed, json!({})).is_some(), "{pushed}");
        }
        for kept in [
            "project=5",
            "project=true",
            "category=x",
            "title contains x",
            "created>=2026-01-01",
            "not project=alpha",
            "/a exists",
            "/a/0=text",
            "/a/_value=text",
            "\"/a.b\"=text",
            "/a=null",
            "/a<text",
            "\"\"=1",
            "project=alpha or created>=2026-01-01",
            "tag=\"a/b\"",
        ] {
            assert!(filter(kept, json!({})).is_none(), "{kept}");
        }
    }

    #[test]
    fn an_index_without_some_values_is_not_asked() {
        for (condition, good, bad) in [
            ("project=alpha", json!("keyword"), json!({"type": "uuid"})),
            ("/n=5", json!({"type": "float"}), json!("integer")),
            ("/flag=true", json!("bool"), json!("keyword")),
        ] {
            let name = condition.split('=').next().unwrap_or_default().trim_start_matches('/');
            let key = if name == "project" { "meta.project" } else { name };
            assert!(filter(condition, json!({key: good})).is_some(), "{condition}");
            assert!(filter(condition, json!({key: bad})).is_none(), "{condition}");
        }
        assert!(filter("tag=x", json!({"tags": "keyword"})).is_none());
    }
}
