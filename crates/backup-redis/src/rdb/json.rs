//! Documents of RedisJSON, which has each of them as text in a snapshot.

use bytes::Bytes;

use super::{input::Input, reader::module_name};
use crate::model::{JSON, WHOLE_STRING};

/// Version of the module's form whose one item is the text.
const FORM: u64 = 3;
/// The version and the checksum at the end of a payload.
const FOOTER: usize = 10;

/// The text in the payload of `DUMP`; `None` where it is another module's, another form of
/// RedisJSON's, or too long to be looked into.
pub(crate) fn json_text(payload: &[u8]) -> Option<Bytes> {
    let mut input = Input::new(payload, WHOLE_STRING as u64);
    let of_module = input.byte().ok()? == 7;
    let id = input.len().ok()?;
    if !of_module || id & 0x3ff != FORM || module_name(id) != JSON || input.len().ok()? != 5 {
        return None;
    }
    let text = input.string().ok()?;
    let ends = input.len().ok()? == 0 && input.position() as usize + FOOTER == payload.len();
    ends.then(|| text.into())
}
