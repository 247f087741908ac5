//! JSON pointers (RFC 6901) into the objects of a record.

use serde_json::{Map, Value};

use crate::{
    error::{Error, ErrorKind, Result},
    record::tagged,
};

/// The names on the way to a field.
///
/// It leads through objects only: lists have no fields, and what stands for a value that JSON
/// lacks is one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer {
    text: String,
    names: Vec<String>,
}

impl Pointer {
    /// Reads a pointer; [`check`](Self::check) says whether it is one.
    pub(crate) fn new(text: &str) -> Self {
        let unescape = |name: &str| {
            let bare = name.replace("~0", "").replace("~1", "");
            (!bare.contains('~')).then(|| name.replace("~1", "/").replace("~0", "~"))
        };
        let names = text.strip_prefix('/').and_then(|rest| rest.split('/').map(unescape).collect());
        Self { text: text.to_owned(), names: names.unwrap_or_default() }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.names.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "not a JSON pointer to a field")
            .on(format!("{:?}", self.text))
            .advise("write it like /meta/title, with ~1 for / and ~0 for ~"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// What of `place`, another pointer, lies below this one: empty where they are the same.
    pub(crate) fn below<'p>(&self, place: &'p str) -> Option<&'p str> {
        place.strip_prefix(&self.text).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub(crate) fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.names.iter().try_fold(value, |value, name| members(value)?.get(name))
    }

    /// Takes the field out, and the objects on the way to it that this leaves empty.
    pub(crate) fn take(&self, value: &mut Value) -> Option<Value> {
        take(value, &self.names)
    }

    /// Puts the field in, with the objects on the way to it.
    pub(crate) fn put(&self, value: &mut Value, field: Value) -> Result<()> {
        let Some((last, way)) = self.names.split_last() else { return self.check() };
        let mut place = value;
        for name in way {
            let members = self.members_mut(place)?;
            place = members.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new()));
        }
        self.members_mut(place)?.insert(last.clone(), field);
        Ok(())
    }

    fn members_mut<'v>(&self, value: &'v mut Value) -> Result<&'v mut Map<String, Value>> {
        let what = "the field has no place: what should hold it is not an object";
        members_mut(value)
            .ok_or_else(|| Error::new(ErrorKind::Incompatible, what).on(self.as_str()))
    }
}

fn members(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|members| !members.contains_key(tagged::TYPE))
}

fn members_mut(value: &mut Value) -> Option<&mut Map<String, Value>> {
    value.as_object_mut().filter(|members| !members.contains_key(tagged::TYPE))
}

fn take(value: &mut Value, names: &[String]) -> Option<Value> {
    let members = members_mut(value)?;
    let (name, rest) = names.split_first()?;
    if rest.is_empty() {
        return members.remove(name);
    }
    let inner = members.get_mut(name)?;
    let taken = take(inner, rest)?;
    if inner.as_object().is_some_and(Map::is_empty) {
        members.remove(name);
    }
    Some(taken)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        let pointer = Pointer::new(text);
        pointer.check().unwrap();
        pointer
    }

    #[test]
    fn a_pointer_leads_to_a_field() {
        for bad in ["", "title", "/a~2", "/~"] {
            assert!(Pointer::new(bad).check().is_err(), "{bad}");
        }
        let value = json!({"a": {"b/c": 1, "~": 2}, "": 3, "list": [4], "bytes": {"$type": "x"}});
        assert_eq!(pointer("/a/b~1c").get(&value), Some(&json!(1)));
        assert_eq!(pointer("/a/~0").get(&value), Some(&json!(2)));
        assert_eq!(pointer("/").get(&value), Some(&json!(3)));
        for absent in ["/x", "/a/x/y", "/list/0", "/bytes/$type"] {
            assert_eq!(pointer(absent).get(&value), None, "{absent}");
        }
        assert_eq!(pointer("/~01").names, ["~1"]);
        let meta = pointer("/meta");
        assert_eq!(meta.below("/meta"), Some(""));
        assert_eq!(meta.below("/meta/title"), Some("/title"));
        assert_eq!(meta.below("/metal"), None);
    }

    #[test]
    fn a_field_goes_in_and_out_with_what_leads_to_it() {
        let mut value = json!({"x": 1});
        pointer("/a/b/c").put(&mut value, json!(7)).unwrap();
        assert_eq!(value, json!({"x": 1, "a": {"b": {"c": 7}}}));
        pointer("/a/d").put(&mut value, json!({})).unwrap();
        assert_eq!(pointer("/a/b/c").take(&mut value), Some(json!(7)));
        assert_eq!(value, json!({"x": 1, "a": {"d": {}}}));
        assert_eq!(pointer("/a/d").take(&mut value), Some(json!({})));
        assert_eq!(value, json!({"x": 1}));
        assert_eq!(pointer("/x/y").take(&mut value), None);
        assert!(pointer("/x/y").put(&mut value, json!(1)).is_err());
        assert!(pointer("/x").put(&mut json!([]), json!(1)).is_err());
        assert!(pointer("/x").put(&mut json!({"$type": "Map"}), json!(1)).is_err());
    }
}
