//! Values, each in 17 bytes.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

const INLINE: usize = 16;
const UUID: u8 = 0xfe;
const HASH: u8 = 0xff;

/// A value: a short one or a UUID as it is, any other as the first half of its SHA-256. The
/// first byte says which. Two that differ are taken for one less often than disks fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint([u8; INLINE + 1]);

impl Fingerprint {
    /// That of a value, by its canonical JSON.
    pub(crate) fn of(json: &str) -> Self {
        let mut bytes = [0; INLINE + 1];
        let (tag, rest) = bytes.split_at_mut(1);
        if json.len() <= INLINE {
            tag[0] = json.len() as u8;
            rest[..json.len()].copy_from_slice(json.as_bytes());
        } else if let Some(uuid) = uuid(json) {
            tag[0] = UUID;
            rest.copy_from_slice(uuid.as_bytes());
        } else {
            tag[0] = HASH;
            rest.copy_from_slice(&Sha256::digest(json)[..INLINE]);
        }
        Self(bytes)
    }

    /// The canonical JSON, where it is in here.
    pub(crate) fn json(&self) -> Option<String> {
        let (tag, rest) = (self.0[0], &self.0[1..]);
        match tag {
            HASH => None,
            UUID => Some(format!("\"{}\"", Uuid::from_slice(rest).ok()?.hyphenated())),
            len => String::from_utf8(rest.get(..usize::from(len))?.to_vec()).ok(),
        }
    }
}

// Only what is written back the same.
fn uuid(json: &str) -> Option<Uuid> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    let uuid = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (*uuid.hyphenated().encode_lower(&mut buffer) == *text).then_some(uuid)
}
