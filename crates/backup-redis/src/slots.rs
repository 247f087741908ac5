//! Slots of a cluster.

use std::sync::OnceLock;

/// Ranges of slots, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(pub(crate) Vec<(u16, u16)>);

impl Ranges {
    pub(crate) fn has(&self, slot: u16) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&slot))
    }
}

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (from, to)) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{from}-{to}")?;
        }
        Ok(())
    }
}

/// The slot of a key: of what stands in its first braces, where that is something.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let len = key[open + 1..].iter().position(|byte| *byte == b'}')?;
        (len > 0).then(|| &key[open + 1..open + 1 + len])
    });
    crc16(tag.unwrap_or(key)) % 16_384
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// A short text whose slot is this one, to stand in braces before a name of ours.
pub(crate) fn tag(slot: u16) -> u32 {
    static TAGS: OnceLock<Vec<u32>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![u32::MAX; 16_384];
        let mut missing = tags.len();
        for number in 0_u32.. {
            let place = usize::from(crc16(number.to_string().as_bytes()) % 16_384);
            if tags[place] == u32::MAX {
                tags[place] = number;
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        tags
    });
    tags[usize::from(slot)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384);
        assert_eq!(slot(b"foo{{bar}}zap"), crc16(b"{bar") % 16_384);
        assert_eq!(slot(b"foo{bar}{zap}"), crc16(b"bar") % 16_384);
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot_number in [0, 1, 8191, 16_383] {
            let name = format!("x{{{}}}y{{z}}", tag(slot_number));
            assert_eq!(slot(name.as_bytes()), slot_number);
        }
    }
}
