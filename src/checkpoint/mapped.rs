//! A file of weights, mapped into memory.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use memmap2::Mmap;

use crate::{Error, Result};

/// The map lives as long as this value, or any bytes taken from it.
#[derive(Debug)]
pub(super) struct MappedFile(Arc<Mmap>);

impl MappedFile {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        // SAFETY: the map is only read, and sound as long as nobody changes the file in place; see `Checkpoint`.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(Self(Arc::new(map)))
    }

    /// All of the file.
    pub fn bytes(&self) -> bytes::Bytes {
        /// An owner that `bytes` can look into.
        struct Owner(Arc<Mmap>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        bytes::Bytes::from_owner(Owner(self.0.clone()))
    }

    /// Tells the operating system that a part of the file has been copied and will hardly be read again, so that it
    /// does not count as used memory. Bytes that are not from this file are ignored.
    pub fn release(&self, part: &Range<*const u8>) {
        #[cfg(unix)]
        if self.0.as_ptr_range().start <= part.start && part.end <= self.0.as_ptr_range().end {
            let offset = part.start.addr() - self.0.as_ptr().addr();
            let length = part.end.addr() - part.start.addr();
            // SAFETY: if the pages of a file's map are needed again, they are read from the file again. If the system
            // refuses the advice, only more memory is used.
            let _ = unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, length) };
        }
        #[cfg(not(unix))]
        let _ = part;
    }
}
