//! New keys and titles for records that are kept beside others.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::resolver::Resolver;
use crate::{
    error::{Error, ErrorKind, Result},
    record::{
        Key, canonical,
        tagged::{self, Scalar},
    },
};

/// What the title of a copy ends in.
const SUFFIX: &str = " (imported)";

/// The `attempt`th key for a copy of the record `key`: always the same, and of the same type.
pub(super) fn new_key(
    resolver: &Resolver,
    collection: &str,
    key: &Key,
    attempt: u32,
) -> Result<Key> {
    let seed = seed(resolver, collection, key, attempt);
    let made = match canonical::parse(key.as_json().as_bytes())? {
        // The last part tells records apart, those before it say whose they are.
        Value::Array(mut parts) => match parts.pop().and_then(|last| new_part(&last, &seed)) {
            Some(last) => {
                let parts = parts.iter().map(|part| Key::from_json(&part.to_string()));
                Some(Key::composite(parts.chain([Ok(last)]).collect::<Result<Vec<_>>>()?))
            }
            None => None,
        },
        one => new_part(&one, &seed),
    };
    made.ok_or_else(|| {
        Error::new(ErrorKind::Conflict, "no new key can be made for a record that is kept twice")
            .advise("choose another rule than keep-both for this collection")
    })
}

fn seed(resolver: &Resolver, collection: &str, key: &Key, attempt: u32) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in [&resolver.archive.as_bytes()[..], collection.as_bytes(), key.as_json().as_bytes()]
    {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(attempt.to_le_bytes());
    hasher.finalize().into()
}

fn new_part(part: &Value, seed: &[u8; 32]) -> Option<Key> {
    Some(match tagged::scalar(part)? {
        Scalar::Integer(_) => Key::from(number(seed)),
        Scalar::Text(text) => Key::from(&*new_text(&text, seed)),
        Scalar::Bytes(bytes) if bytes.len() == 16 => Key::bytes(uuid(seed).as_bytes()),
        Scalar::Bytes(bytes) => Key::bytes(&[&bytes[..], &seed[..8]].concat()),
        Scalar::Null | Scalar::Bool(_) | Scalar::Float(_) => return None,
    })
}

// 53 bits, so that every JSON reader keeps it; never 0, which some stores give a meaning.
fn number(seed: &[u8; 32]) -> u64 {
    let bits = u64::from_le_bytes(std::array::from_fn(|i| seed[i]));
    (bits >> 11).max(1)
}

// Version 8 of RFC 9562: made of a hash.
fn uuid(seed: &[u8; 32]) -> Uuid {
    uuid::Builder::from_custom_bytes(std::array::from_fn(|i| seed[i])).into_uuid()
}

fn new_text(text: &str, seed: &[u8; 32]) -> String {
    let uuid = uuid(seed);
    match (text.len(), Uuid::try_parse(text)) {
        (36, Ok(_)) => uuid.hyphenated().to_string(),
        (32, Ok(_)) => uuid.simple().to_string(),
        _ => format!("{text}-imported-{}", &uuid.simple().to_string()[20..]),
    }
}

/// The value of a copy: its title says so, and where it repeats the key, the new one stands.
pub(super) fn relabel(resolver: &Resolver, value: &mut Value, key: &Key) -> Result<()> {
    let mut label = |pointer: &Option<String>| match pointer
        .as_deref()
        .and_then(|pointer| value.pointer_mut(pointer))
    {
        Some(Value::String(text)) => {
            if !text.ends_with(SUFFIX) {
                text.push_str(SUFFIX);
            }
            true
        }
        _ => false,
    };
    let _ = label(&resolver.fields.title) || label(&resolver.fields.content);
    let parts = match canonical::parse(key.as_json().as_bytes())? {
        Value::Array(parts) => parts,
        one => vec![one],
    };
    for (pointer, part) in resolver.key_fields.iter().zip(parts) {
        if let Some(place) = value.pointer_mut(pointer) {
            *place = part;
        }
    }
    Ok(())
}
