//! The canonical text of JSON values, of which every byte is fixed.
//!
//! Digests are taken over text, so the same value must always have the same text.
//! The rules, which `docs/FORMAT.md` states with test vectors:
//!
//! * no white space; the members of an object stand in the order of their names' UTF-8
//!   bytes, and no name stands twice;
//! * strings escape `"` and `\`, use `\b \t \n \f \r` where JSON has them and `\u00xx` in
//!   lower case for the other control characters, and nothing else;
//! * integers are digits; a float has the shortest digits that read back to the same
//!   double, always with a point or an exponent: `1.0`, `-0.0`, `1e22`, `1.5e-7`. Plain
//!   notation is used where the decimal point stands within 16 digits to the right of the
//!   first digit or 5 zeros to its left.
//!
//! [`Writer`] writes such text; [`canonicalize`] brings any JSON text into this form.

use std::{cmp::Ordering, fmt, io::Write as _, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, ErrorKind, Result};

/// Deepest nesting of arrays and objects that is read or written.
pub const MAX_DEPTH: usize = 120;

/// Writes canonical JSON text, value by value.
///
/// The caller keeps to the grammar (a name before each member's value); names that are out
/// of order are an error of [`name`](Writer::name).
///
/// ```
/// use backup_core::record::canonical::Writer;
///
/// let mut text = Vec::new();
/// let mut json = Writer::new(&mut text);
/// json.begin_object()?;
/// json.name("score")?;
/// json.float(1.0);
/// json.name("tags")?;
/// json.begin_array()?;
/// json.string("a");
/// json.null();
/// json.end_array();
/// json.end_object();
/// assert_eq!(text, br#"{"score":1.0,"tags":["a",null]}"#);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
    // Where the latest name of the innermost object stands, between its quotes; empty at 0 where
    // there is none yet, and in arrays.
    name: Range<usize>,
    // Those of the objects and arrays around it, but for the outermost, around which nothing is:
    // most records need no room for more.
    around: Vec<Range<usize>>,
    first: bool,
    after_name: bool,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, depth: 0, name: 0..0, around: Vec::new(), first: true, after_name: false }
    }

    fn separate(&mut self) {
        if self.after_name {
            self.after_name = false;
        } else if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    fn deeper(&mut self) -> Result<()> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("a JSON value is nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let around = std::mem::replace(&mut self.name, 0..0);
        if self.depth > 0 {
            self.around.push(around);
        }
        self.depth += 1;
        Ok(())
    }

    fn up(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.name = self.around.pop().unwrap_or(0..0);
    }

    /// `{`
    ///
    /// # Errors
    /// Nesting deeper than [`MAX_DEPTH`].
    pub fn begin_object(&mut self) -> Result<()> {
        self.deeper()?;
        self.separate();
        self.out.push(b'{');
        self.first = true;
        Ok(())
    }

    /// `}`
    pub fn end_object(&mut self) {
        self.up();
        self.out.push(b'}');
        self.first = false;
    }

    /// `[`
    ///
    /// # Errors
    /// Nesting deeper than [`MAX_DEPTH`].
    pub fn begin_array(&mut self) -> Result<()> {
        self.deeper()?;
        self.separate();
        self.out.push(b'[');
        self.first = true;
        Ok(())
    }

    /// `]`
    pub fn end_array(&mut self) {
        self.up();
        self.out.push(b']');
        self.first = false;
    }

    /// A member's name; its value follows.
    ///
    /// # Errors
    /// A name that does not stand after the one before it in UTF-8 byte order.
    pub fn name(&mut self, name: &str) -> Result<()> {
        if self.name.start > 0 {
            match compare(&self.out[self.name.clone()], name) {
                Ordering::Less => {}
                Ordering::Equal => {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        "a JSON object has the same name twice",
                    )
                    .on(name));
                }
                Ordering::Greater => {
                    return Err(Error::adapter("names of a JSON object are out of order").on(name));
                }
            }
        }
        self.separate();
        let quote = self.out.len();
        string(self.out, name);
        self.name = quote + 1..self.out.len() - 1;
        self.out.push(b':');
        self.after_name = true;
        Ok(())
    }

    /// `null`
    pub fn null(&mut self) {
        self.separate();
        self.out.extend_from_slice(b"null");
    }

    /// `true` or `false`
    pub fn bool(&mut self, value: bool) {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// An integer as digits, whatever its size.
    ///
    /// Adapters use [`tagged::integer`](super::tagged::integer), which tags what other
    /// readers would round.
    pub fn integer(&mut self, value: impl Into<i128>) {
        self.separate();
        let value: i128 = value.into();
        // 128 bits are slow to print.
        match i64::try_from(value) {
            Ok(value) => digits(self.out, value),
            Err(_) => digits(self.out, value),
        }
    }

    /// A finite float in the canonical form; NaN and infinities as
    /// [tagged values](super::tagged).
    pub fn float(&mut self, value: f64) {
        self.separate();
        float(self.out, value);
    }

    /// A string.
    pub fn string(&mut self, value: &str) {
        self.separate();
        string(self.out, value);
    }

    /// Text that is canonical already, such as a [`Key`](super::Key).
    pub fn canonical_text(&mut self, text: &str) {
        self.separate();
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Any JSON value.
    ///
    /// # Errors
    /// Nesting deeper than [`MAX_DEPTH`].
    pub fn value(&mut self, value: &serde_json::Value) -> Result<()> {
        use serde_json::Value;
        match value {
            Value::Null => self.null(),
            Value::Bool(b) => self.bool(*b),
            Value::Number(n) => {
                if let Some(i) = n.as_i64() {
                    self.integer(i);
                } else if let Some(u) = n.as_u64() {
                    self.integer(u);
                } else {
                    self.float(n.as_f64().unwrap_or(f64::NAN));
                }
            }
            Value::String(s) => self.string(s),
            Value::Array(items) => {
                self.begin_array()?;
                for item in items {
                    self.value(item)?;
                }
                self.end_array();
            }
            Value::Object(members) => {
                self.begin_object()?;
                // A map keeps its order where a host turned `preserve_order` on.
                let mut names: Vec<_> = members.iter().collect();
                names.sort_unstable_by(|a, b| a.0.cmp(b.0));
                for (name, item) in names {
                    self.name(name)?;
                    self.value(item)?;
                }
                self.end_object();
            }
        }
        Ok(())
    }
}

/// How a name that was written stands to one that follows.
fn compare(written: &[u8], name: &str) -> Ordering {
    if !written.contains(&b'\\') {
        return written.cmp(name.as_bytes());
    }
    let quoted = [b"\"", written, b"\""].concat();
    let written: String = serde_json::from_slice(&quoted).expect("written as a JSON string");
    written.as_str().cmp(name)
}

fn digits(out: &mut Vec<u8>, value: impl fmt::Display) {
    write!(out, "{value}").expect("memory takes everything");
}

fn string(out: &mut Vec<u8>, value: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = value.as_bytes();
    while let Some(at) = escaped(rest) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        rest = &rest[at + 1..];
        let short = match byte {
            0x08 => b'b',
            0x09 => b't',
            0x0a => b'n',
            0x0c => b'f',
            0x0d => b'r',
            0x00..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
                continue;
            }
            _ => byte,
        };
        out.extend_from_slice(&[b'\\', short]);
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Where the first byte stands that a string escapes.
fn escaped(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // The top bit of each byte below `limit`, up to the first; above that it may err.
    let below =
        |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & (ONES * 0x80);
    let mut words = bytes.chunks_exact(8);
    for (at, word) in words.by_ref().enumerate() {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        let quotes = below(word ^ (ONES * u64::from(b'"')), 1);
        let slashes = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = below(word, 0x20) | quotes | slashes;
        if found != 0 {
            return Some(8 * at + found.trailing_zeros() as usize / 8);
        }
    }
    let rest = words.remainder();
    let at = rest.iter().position(|byte| matches!(byte, 0x00..=0x1f | b'"' | b'\\'))?;
    Some(bytes.len() - rest.len() + at)
}

fn float(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        out.extend_from_slice(super::tagged::non_finite(value).as_bytes());
        return;
    }
    let mut buffer = ryu::Buffer::new();
    let Decimal { negative, digits: all, count, point } = decimal(buffer.format_finite(value));
    let all = &all[..count];
    if negative {
        out.push(b'-');
    }
    let count = count as i32;
    // `point` is where the decimal point stands, counted from the left of the digits.
    if (1..=16).contains(&point) {
        let split = point.min(count) as usize;
        out.extend_from_slice(&all[..split]);
        out.resize(out.len() + (point - count).max(0) as usize, b'0');
        out.push(b'.');
        out.extend_from_slice(if point < count { &all[split..] } else { b"0" });
    } else if (-4..=0).contains(&point) {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(all);
    } else {
        out.push(all[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&all[1..]);
        }
        out.push(b'e');
        digits(out, point - 1);
    }
}

/// A number's sign, its significant digits without outer zeros, and the place of its point.
struct Decimal {
    negative: bool,
    // A double has at most 17.
    digits: [u8; 17],
    count: usize,
    point: i32,
}

// Of a number as any release of the crate may print it: its layout is not part of the format,
// ours is.
fn decimal(text: &str) -> Decimal {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().expect("printed by the crate");
    let (mut digits, mut count, mut zeros) = ([b'0'; 17], 0, 0);
    let (mut point, mut fraction) = (0, false);
    for byte in mantissa.bytes() {
        match byte {
            b'.' => {
                fraction = true;
                continue;
            }
            b'0' if count == 0 => {
                point -= i32::from(fraction);
                continue;
            }
            b'0' => zeros += 1,
            digit => {
                count += zeros + 1;
                zeros = 0;
                digits[count - 1] = digit;
            }
        }
        point += i32::from(!fraction);
    }
    if count == 0 {
        return Decimal { negative, digits, count: 1, point: 1 };
    }
    Decimal { negative, digits, count, point: point + exponent }
}

/// Brings one JSON text into the canonical form.
///
/// Integers of up to 64 bits keep their digits; a larger integer is a float to every JSON
/// reader and becomes one.
///
/// ```
/// use backup_core::record::canonical::canonicalize;
///
/// assert_eq!(canonicalize(br#" {"b": 1E2, "a": "\u0041"} "#)?, r#"{"a":"A","b":100.0}"#);
/// assert!(canonicalize(br#"{"a":1,"a":2}"#).is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
///
/// # Errors
/// Text that is not JSON, a name that stands twice in an object, nesting deeper than
/// [`MAX_DEPTH`].
pub fn canonicalize(text: &[u8]) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let value = parse(text)?;
    Writer::new(&mut out).value(&value)?;
    Ok(String::from_utf8(out).expect("built from strings"))
}

/// Reads one JSON text, and refuses what `serde_json` lets pass: a name that stands twice.
///
/// # Errors
/// As [`canonicalize`].
pub fn parse(text: &[u8]) -> Result<serde_json::Value> {
    let bad = |e: serde_json::Error| {
        Error::new(ErrorKind::InvalidInput, "text is not acceptable JSON").because(e)
    };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut reader).map_err(bad)?;
    reader.end().map_err(bad)?;
    Ok(value)
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = serde_json::Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = serde_json::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(serde_json::Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Self::Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Self::Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Self::Value, E> {
        Ok(v.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(items.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = serde_json::Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(serde::de::Error::custom(format_args!("{name:?} stands twice")));
            }
            let value = map.next_value_seed(Strict)?;
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    // The table of docs/FORMAT.md.
    #[test]
    fn floats_have_one_text() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (100.0, "100.0"),
            (0.1, "0.1"),
            (123.456, "123.456"),
            (0.00001, "0.00001"),
            (0.000001, "1e-6"),
            (1.5e-7, "1.5e-7"),
            (1e15, "1000000000000000.0"),
            (9007199254740993.0, "9007199254740992.0"),
            (1e16, "1e16"),
            (1e22, "1e22"),
            (1.7976931348623157e308, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (f64::NAN, r#"{"$type":"Float","_value":"NaN"}"#),
            (f64::NEG_INFINITY, r#"{"$type":"Float","_value":"-Infinity"}"#),
        ] {
            assert_eq!(text(value), expected);
            if value.is_finite() {
                assert_eq!(expected.parse::<f64>().unwrap().to_bits(), value.to_bits());
            }
        }
    }

    #[test]
    fn strings_have_one_text() {
        let mut out = Vec::new();
        string(&mut out, "a\"\\/\u{8}\t\n\u{c}\r\u{1}\u{1f}\u{7f}é\u{2028}😀");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\"a\\\"\\\\/\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}é\u{2028}😀\""
        );
    }

    // Wherever it stands among plain ones.
    #[test]
    fn every_byte_is_escaped_or_not_at_every_place() {
        for byte in 0..128_u8 {
            for place in 0..17 {
                let mut value = vec![b'x'; 17];
                value[place] = byte;
                let value = String::from_utf8(value).unwrap();
                let mut out = Vec::new();
                string(&mut out, &value);
                let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                assert_eq!(out.contains(&b'\\'), special, "{byte} at {place}");
                assert_eq!(out.len() > 19, special, "{byte} at {place}");
                assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
            }
        }
    }

    #[test]
    fn names_in_order_are_taken_and_others_are_refused() {
        let names = ["", "\t", "\n", "\"", "A", "\\", "a", "a\u{1}", "aa", "é"];
        let ascending = names.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(ascending);
        for (before, name) in names.iter().enumerate().flat_map(|(at, name)| {
            names.iter().enumerate().map(move |(other, next)| ((at, name), (other, next)))
        }) {
            let mut out = Vec::new();
            let mut json = Writer::new(&mut out);
            json.begin_object().unwrap();
            json.name(before.1).unwrap();
            // What stands between has names of its own.
            json.begin_object().unwrap();
            json.name("z").unwrap();
            json.begin_array().unwrap();
            json.end_array();
            json.end_object();
            let taken = json.name(name.1);
            assert_eq!(taken.is_ok(), before.0 < name.0, "{before:?} {name:?}");
        }
    }

    #[test]
    fn names_stand_in_byte_order() {
        // U+FF61 sorts before U+1F600 in UTF-8 and after it in UTF-16.
        assert_eq!(
            canonicalize("{\"😀\":1,\"｡\":2,\"\":3,\"Z\":4,\"a\":5}".as_bytes()).unwrap(),
            "{\"\":3,\"Z\":4,\"a\":5,\"｡\":2,\"😀\":1}"
        );
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in ["", "{", "01", "1.", "nul", "\"\n\"", "[1,]", "{\"a\":1}x", "\"\\ud800\""] {
            assert!(canonicalize(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        assert!(canonicalize(&deep).is_err());
        let allowed = [vec![b'['; MAX_DEPTH], vec![b']'; MAX_DEPTH]].concat();
        assert!(canonicalize(&allowed).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_double_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                let text = text(value);
                proptest::prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
                proptest::prop_assert!(text.contains(['.', 'e']));
                proptest::prop_assert_eq!(canonicalize(text.as_bytes()).unwrap(), text);
            }
        }

        #[test]
        fn any_string_reads_back(value: String) {
            let mut out = Vec::new();
            string(&mut out, &value);
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }
    }
}
