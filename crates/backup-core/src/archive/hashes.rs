//! The two hashes of a part's content: of all its bytes, and with the masked ones as zeros.

use sha2::{Digest as _, Sha256};

use crate::record::{MaskedHasher, Sha256Digest};

/// Pieces from this length on are worth a second thread.
const LONG: usize = 256 << 10;

/// Takes a part's content as it passes.
pub(super) struct ContentHasher {
    plain: Sha256,
    // `None`: nothing is masked, so both are the same.
    masked: Option<MaskedHasher>,
}

/// What became of a [`ContentHasher`].
pub(super) struct ContentHashes {
    pub(super) plain: Sha256Digest,
    pub(super) masked: Sha256Digest,
}

impl ContentHasher {
    /// `masked` holds the ranges from which to which bytes count as zeros, ascending.
    pub(super) fn new(masked: &[(u64, u64)]) -> Self {
        let ranges: Vec<_> = masked.iter().map(|(start, end)| *start..*end).collect();
        let masked = (!ranges.is_empty()).then(|| MaskedHasher::new(&ranges));
        Self { plain: Sha256::new(), masked }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.plain.update(bytes);
        if let Some(masked) = &mut self.masked {
            masked.update(bytes);
        }
    }

    /// As [`update`](Self::update), with the help of another thread where that is worth it.
    pub(super) fn update_with(&mut self, helper: &rayon::ThreadPool, bytes: &[u8]) {
        let Self { plain, masked } = self;
        match masked {
            Some(masked) if bytes.len() >= LONG => helper.in_place_scope(|scope| {
                scope.spawn(|_| masked.update(bytes));
                plain.update(bytes);
            }),
            _ => self.update(bytes),
        }
    }

    pub(super) fn finish(self) -> ContentHashes {
        let plain = Sha256Digest::finish(self.plain);
        ContentHashes { plain, masked: self.masked.map_or(plain, MaskedHasher::finish) }
    }
}
