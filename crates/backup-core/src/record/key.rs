//! The identity of a record within its collection.

use std::fmt;

use super::{canonical, tagged};
use crate::error::{Error, ErrorKind, Result};

/// The identity of a record within its collection: an integer, text, bytes, or several of
/// these (a composite primary key).
///
/// Kept as canonical JSON text, so equality is exact and `1`, `1.0` and `"1"` differ.
///
/// ```
/// use backup_core::record::Key;
///
/// assert_eq!(Key::from("a").as_json(), r#""a""#);
/// assert_eq!(Key::from(7).as_json(), "7");
/// assert_eq!(Key::composite([Key::from(1), Key::from("x")]).as_json(), r#"[1,"x"]"#);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<str>);

impl Key {
    /// Longest text of a key, in bytes.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Bytes as a key.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::written(|json| tagged::bytes(json, bytes))
    }

    /// A float as a key; NaN is allowed and equals itself.
    #[must_use]
    pub fn float(value: f64) -> Self {
        Self::written(|json| json.float(value))
    }

    /// No value: some engines allow it in a primary key.
    #[must_use]
    pub fn null() -> Self {
        Self("null".into())
    }

    /// Several keys in order.
    #[must_use]
    pub fn composite(keys: impl IntoIterator<Item = Key>) -> Self {
        let parts: Vec<_> = keys.into_iter().map(|key| key.0).collect();
        Self(format!("[{}]", parts.join(",")).into())
    }

    /// A key from JSON text, which is brought into canonical form.
    ///
    /// # Errors
    /// Text that is not JSON; more than [`Key::MAX_BYTES`].
    pub fn from_json(text: &str) -> Result<Self> {
        if text.len() > Self::MAX_BYTES {
            return Err(too_long());
        }
        Ok(Self(canonical::canonicalize(text.as_bytes())?.into()))
    }

    /// A key as a writer puts it down: one that is made of canonical text need not be parsed for it.
    ///
    /// ```
    /// use backup_core::record::Key;
    ///
    /// let key = Key::write(|json| {
    ///     json.begin_array()?;
    ///     json.canonical_text(r#"["a",1]"#);
    ///     json.integer(7);
    ///     json.end_array();
    ///     Ok(())
    /// })?;
    /// assert_eq!(key, Key::from_json(r#"[["a",1],7]"#)?);
    /// # Ok::<(), backup_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `write`; more than [`Key::MAX_BYTES`].
    pub fn write(write: impl FnOnce(&mut canonical::Writer<'_>) -> Result<()>) -> Result<Self> {
        let mut out = Vec::new();
        write(&mut canonical::Writer::new(&mut out))?;
        let text = String::from_utf8(out)
            .map_err(|e| Error::adapter("a record's key is not UTF-8").because(e))?;
        if text.len() > Self::MAX_BYTES {
            return Err(too_long());
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn from_canonical(text: &str) -> Self {
        Self(text.into())
    }

    fn written(write: impl FnOnce(&mut canonical::Writer<'_>)) -> Self {
        let mut out = Vec::new();
        write(&mut canonical::Writer::new(&mut out));
        Self::of_writer(out)
    }

    fn of_writer(out: Vec<u8>) -> Self {
        Self(String::from_utf8(out).expect("canonical text is UTF-8").into())
    }

    /// The canonical JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// The scalars of the key, one for a simple key; `None` where a part is not a scalar.
    #[must_use]
    pub fn scalars(&self) -> Option<Vec<tagged::Scalar>> {
        match serde_json::from_str(&self.0).ok()? {
            serde_json::Value::Array(parts) => parts.iter().map(tagged::scalar).collect(),
            one => Some(vec![tagged::scalar(&one)?]),
        }
    }
}

fn too_long() -> Error {
    Error::new(ErrorKind::LimitExceeded, "a record's key is too long")
}

impl From<i64> for Key {
    fn from(value: i64) -> Self {
        Self::written(|json| tagged::integer(json, value))
    }
}

impl From<u64> for Key {
    fn from(value: u64) -> Self {
        Self::written(|json| tagged::integer(json, value))
    }
}

impl From<i32> for Key {
    fn from(value: i32) -> Self {
        Self::from(i64::from(value))
    }
}

impl From<&str> for Key {
    fn from(value: &str) -> Self {
        // There is room for most texts, so that they are not moved.
        let mut out = Vec::with_capacity(value.len() + 2);
        canonical::Writer::new(&mut out).string(value);
        Self::of_writer(out)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}
