//! Hashing bodies while they go by.

use std::sync::{Arc, Mutex};

use futures::StreamExt;

use crate::{
    error::{Error, Result},
    part::ByteStream,
    record::{MaskedHasher, Sha256Digest},
};

/// What went through a body.
pub(super) struct Seen(Arc<Mutex<(MaskedHasher, u64)>>);

impl Seen {
    pub(super) fn through(
        body: &mut ByteStream,
        masked: &[std::ops::Range<u64>],
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new((MaskedHasher::new(masked), 0)));
        let inside = Arc::clone(&seen);
        let whole = std::mem::replace(body, futures::stream::empty().boxed());
        *body = whole
            .inspect(move |piece| {
                if let (Ok(bytes), Ok(mut seen)) = (piece, inside.lock()) {
                    seen.0.update(bytes);
                    seen.1 += bytes.len() as u64;
                    progress(seen.1);
                }
            })
            .boxed();
        Self(seen)
    }

    /// The digest; an error where the sink was content with less than all of it.
    pub(super) fn finish(self, len: u64) -> Result<Sha256Digest> {
        let seen = self.0.lock().map_err(|_| Error::adapter("hashing a body panicked"))?;
        if seen.1 != len {
            let what = format!("the sink took {} of {len} bytes and was content", seen.1);
            return Err(Error::adapter(what));
        }
        Ok(seen.0.clone().finish())
    }
}
