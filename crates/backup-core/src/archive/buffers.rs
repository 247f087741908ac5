//! Buffers that are used again. Memory that comes and goes on several threads leaves gaps in the
//! heap, and each new page of it costs time.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

/// What a larger buffer than this is for comes once: it is not kept.
const LARGEST: usize = 5 << 20;

/// Bytes that every buffer has behind its own, for what a codec adds.
pub(super) const ROOM: usize = 1 << 10;

/// Where buffers come from and go back to; a clone is the same place. It holds no more of them
/// than were out at one time.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// A buffer of `len` bytes that hold anything.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let used = self.free().pop();
        let bytes = match used {
            Some(bytes) if bytes.len() >= len + ROOM => bytes,
            // Lengths differ a little from one use to the next: the second is for all of them.
            Some(_) => vec![0; len.max(LARGEST) + ROOM],
            None => vec![0; len + ROOM],
        };
        Buffer { bytes, len, home: self.clone() }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are there to be taken.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.free().len()
    }
}

/// A buffer that goes back when it is dropped.
pub(super) struct Buffer {
    // All of them initialised, so that a later use need not write zeros first.
    bytes: Vec<u8>,
    len: usize,
    home: Buffers,
}

impl Buffer {
    /// Leaves the first `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Adds `bytes`, for which there must be room.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// Its bytes, and [`ROOM`] behind them, which holds anything.
    #[cfg(feature = "libdeflate")]
    pub(super) fn with_room(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len + ROOM]
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() <= LARGEST + ROOM {
            self.home.free().push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again() {
        let buffers = Buffers::default();
        drop(buffers.take(1000));
        // The first was too short, and its successor is not.
        let mut longer = buffers.take(1001);
        longer.copy_from_slice(&[7; 1001]);
        let place = longer.as_ptr();
        longer.truncate(1);
        longer.append(&[8, 9]);
        assert_eq!(*longer, [7, 8, 9]);
        drop(longer);
        assert_eq!(buffers.count(), 1);
        let again = buffers.take(LARGEST);
        assert_eq!((again.as_ptr(), again.len(), buffers.count()), (place, LARGEST, 0));
    }

    #[test]
    fn what_is_larger_than_segments_is_not_kept() {
        let buffers = Buffers::default();
        drop(buffers.take(LARGEST + 1));
        assert_eq!(buffers.count(), 0);
    }
}
