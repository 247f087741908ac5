//! What is remembered of the records of one side: in a file without a name, dealt out by key.

use std::{
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Into how many partitions records are dealt: only one is in memory at a time.
pub(super) const PARTITIONS: usize = 256;
/// What waits in memory, of each partition.
const CHUNK: usize = 32 << 10;
const DIGEST: usize = 32;

/// Records by the hash of their key; the same key is in the same partition on both sides.
pub(super) struct Spill {
    dir: PathBuf,
    hasher: RandomState,
    // Made once something has to be written.
    file: Option<File>,
    end: u64,
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    // Where its chunks are in the file: offset and length.
    chunks: Vec<(u64, usize)>,
    waiting: Vec<u8>,
}

/// What is remembered of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Remembered<'a> {
    pub(super) collection: u32,
    pub(super) key: &'a [u8],
    pub(super) line: [u8; DIGEST],
    pub(super) vectors: [u8; DIGEST],
}

impl Spill {
    /// `hasher` is the one of both sides.
    pub(super) fn new(dir: &Path, hasher: RandomState) -> Self {
        let partitions = std::iter::repeat_with(Partition::default).take(PARTITIONS).collect();
        Self { dir: dir.to_owned(), hasher, file: None, end: 0, partitions }
    }

    pub(super) fn add(&mut self, record: Remembered<'_>) -> Result<()> {
        let number = self.hasher.hash_one(record.key) as usize % PARTITIONS;
        let waiting = &mut self.partitions[number].waiting;
        waiting.extend_from_slice(&record.collection.to_le_bytes());
        waiting.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
        waiting.extend_from_slice(record.key);
        waiting.extend_from_slice(&record.line);
        waiting.extend_from_slice(&record.vectors);
        if waiting.len() < CHUNK { Ok(()) } else { self.flush(number) }
    }

    fn flush(&mut self, number: usize) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                none.insert(tempfile::tempfile_in(&self.dir).map_err(|e| failed(&self.dir, e))?)
            }
        };
        let Partition { chunks, waiting } = &mut self.partitions[number];
        file.write_all(waiting).map_err(|e| failed(&self.dir, e))?;
        chunks.push((self.end, waiting.len()));
        self.end += waiting.len() as u64;
        waiting.clear();
        // One long key must not take its place for good.
        waiting.shrink_to(2 * CHUNK);
        Ok(())
    }

    /// Every record of a partition, in the order in which they came.
    pub(super) fn each(
        &mut self,
        number: usize,
        mut visit: impl FnMut(Remembered<'_>),
    ) -> Result<()> {
        let Partition { chunks, waiting } = &self.partitions[number];
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            for (offset, len) in chunks {
                bytes.resize(*len, 0);
                file.seek(SeekFrom::Start(*offset))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|e| failed(&self.dir, e))?;
                parse(&bytes, &mut visit);
            }
        }
        parse(waiting, &mut visit);
        Ok(())
    }
}

fn failed(dir: &Path, error: std::io::Error) -> Error {
    Error::io("what is remembered of the records cannot be kept", error)
        .on(dir.display())
        .advise("make room there, or name another folder for temporary files")
}

// The other end of `add`.
fn parse(mut bytes: &[u8], visit: &mut impl FnMut(Remembered<'_>)) {
    fn number(bytes: &mut &[u8]) -> Option<u32> {
        bytes.split_off(..4)?.try_into().ok().map(u32::from_le_bytes)
    }
    fn digest(bytes: &mut &[u8]) -> Option<[u8; DIGEST]> {
        bytes.split_off(..DIGEST)?.try_into().ok()
    }
    let mut next = || {
        let collection = number(&mut bytes)?;
        let len = number(&mut bytes)? as usize;
        let key = bytes.split_off(..len)?;
        Some(Remembered {
            collection,
            key,
            line: digest(&mut bytes)?,
            vectors: digest(&mut bytes)?,
        })
    };
    while let Some(record) = next() {
        visit(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back_from_memory_and_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path(), RandomState::new());
        let keys: Vec<_> = (0..200_000_u32).map(|n| n.to_string()).collect();
        for (n, key) in (0_u32..).zip(&keys) {
            let (line, vectors) = ([n as u8; 32], [1; 32]);
            spill
                .add(Remembered { collection: n % 3, key: key.as_bytes(), line, vectors })
                .unwrap();
        }
        assert!(spill.end > 4 << 20, "{}", spill.end);
        let long = vec![0; 1 << 20];
        let (line, vectors) = ([0; 32], [0; 32]);
        spill.add(Remembered { collection: 0, key: &long, line, vectors }).unwrap();
        let waiting: usize = spill.partitions.iter().map(|p| p.waiting.capacity()).sum();
        assert!(waiting <= PARTITIONS * 2 * CHUNK, "{waiting}");
        let mut found = vec![0; keys.len()];
        for number in 0..PARTITIONS {
            let mut largest = 0;
            spill
                .each(number, |record| {
                    if record.key.len() == long.len() {
                        return;
                    }
                    let n: u32 = std::str::from_utf8(record.key).unwrap().parse().unwrap();
                    assert_eq!(record.collection, n % 3);
                    assert_eq!((record.line, record.vectors), ([n as u8; 32], [1; 32]));
                    found[n as usize] += 1;
                    largest += 1;
                })
                .unwrap();
            assert!(largest < 2000, "{largest}");
        }
        assert!(found.iter().all(|times| *times == 1));
        // The file has no name.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut spill = Spill::new(Path::new("/no/such/folder"), RandomState::new());
        let (line, vectors, key) = ([0; 32], [0; 32], vec![0; CHUNK]);
        let error = spill.add(Remembered { collection: 0, key: &key, line, vectors }).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}
