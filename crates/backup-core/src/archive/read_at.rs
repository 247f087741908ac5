//! What an archive is read from.

use std::{fs::File, io, sync::Arc};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

/// Something that can be read at any offset: a file, memory, an object in a store.
pub trait ReadAt: Send + Sync {
    /// Its length in bytes; must not change.
    ///
    /// # Errors
    /// A length that cannot be told.
    fn size(&self) -> io::Result<u64>;

    /// Reads some bytes at `offset`; 0 only at the end. May read fewer than asked for.
    ///
    /// # Errors
    /// A read that failed; `Interrupted` is tried again.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
    #[cfg(windows)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

macro_rules! through {
    ($($type:ty $(, $param:ident)?);*) => {$(
        impl$(<$param: ReadAt + ?Sized>)? ReadAt for $type {
            fn size(&self) -> io::Result<u64> {
                ReadAt::size(&**self)
            }
            fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
                ReadAt::read_at(&**self, buffer, offset)
            }
        }
    )*};
}
through!(Vec<u8>; Bytes; Arc<T>, T; Box<T>, T);

/// Reads exactly `len` bytes.
pub(super) fn read_exact(source: &dyn ReadAt, offset: u64, len: u64) -> Result<Vec<u8>> {
    let mut buffer = vec![0; len as usize];
    fill(source, offset, &mut buffer)?;
    Ok(buffer)
}

/// Reads as many bytes as `buffer` takes.
pub(super) fn fill(source: &dyn ReadAt, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match source.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => return Err(Error::new(ErrorKind::Corrupt, "the archive ends too early")),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("the archive could not be read", e)),
        }
    }
    Ok(())
}
