//! LZF, the compression of strings in an RDB, undone piece by piece.

/// What was written before and may be referred to again: 13 bits of distance.
const WINDOW: usize = 8 << 10;
/// The longest copy that one instruction makes.
const LONGEST: usize = 264;

/// One instruction of compressed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes follow as they are.
    Literal(usize),
    /// A copy; so many more bytes say of what: one, or two where the length is in the first.
    Copy { long: bool, short: usize, high: usize },
}

impl Step {
    pub(super) fn of(control: u8) -> Self {
        let control = usize::from(control);
        if control < 32 {
            return Self::Literal(control + 1);
        }
        Self::Copy {
            long: control >> 5 == 7,
            short: (control >> 5) + 2,
            high: (control & 0x1f) << 8,
        }
    }
}

/// Text so far: as much of it as may be referred to, and what was not yet taken.
#[derive(Debug, Default)]
pub(super) struct Window {
    text: Vec<u8>,
    taken: usize,
}

impl Window {
    pub(super) fn untaken(&self) -> usize {
        self.text.len() - self.taken
    }

    pub(super) fn literal(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// Copies `len` bytes from `back` bytes before the end; false where there are none.
    #[must_use]
    pub(super) fn copy(&mut self, back: usize, len: usize) -> bool {
        debug_assert!(len <= LONGEST);
        let Some(from) = self.text.len().checked_sub(back) else { return false };
        if back >= len {
            self.text.extend_from_within(from..from + len);
        } else {
            // It overlaps what it writes: a run.
            for at in from..from + len {
                self.text.push(self.text[at]);
            }
        }
        true
    }

    /// Takes up to `most` bytes and forgets what nothing can refer to.
    pub(super) fn take(&mut self, most: usize) -> Vec<u8> {
        let to = self.text.len().min(self.taken + most);
        let out = self.text[self.taken..to].to_vec();
        self.taken = to;
        let old = self.taken.min(self.text.len().saturating_sub(WINDOW));
        // Not each time: moving the rest costs, too.
        if old >= 4 * WINDOW {
            self.text.drain(..old);
            self.taken -= old;
        }
        out
    }
}
