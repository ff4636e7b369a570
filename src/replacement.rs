//! Files that are there in full or not at all.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Writes a file in full or not at all: first under a temporary name in the same folder, then in its place.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written there.
pub fn write_file(path: impl AsRef<Path>, content: &[u8]) -> Result<()> {
    Replacement::of(path.as_ref().to_owned(), content)?.commit()
}

/// A file that is complete under a temporary name and only has to take its place. Dropped instead, it leaves no trace.
pub(crate) struct Replacement {
    file: NamedTempFile,
    path: PathBuf,
}

impl Replacement {
    /// Prepares the file at `path` with what `write` puts into it; the folder must exist.
    pub fn new(path: PathBuf, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<Self> {
        // The parent of a bare file name is empty, which stands for the current folder.
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        // Temporary files are for their owner only, these will not be temporary. The umask still applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(Error::io("create", &path))?;
        let mut buffer = BufWriter::new(file.as_file());
        write(&mut buffer)?;
        buffer.flush().map_err(Error::io("write", &path))?;
        drop(buffer);
        Ok(Self { file, path })
    }

    /// Prepares the file at `path` with the given content.
    pub fn of(path: PathBuf, content: &[u8]) -> Result<Self> {
        Self::new(path.clone(), |file| file.write_all(content).map_err(Error::io("write", path)))
    }

    /// Puts the file in its place, over what was there.
    pub fn commit(self) -> Result<()> {
        self.file.persist(&self.path).map_err(|error| Error::io("replace", &self.path)(error.error))?;
        Ok(())
    }
}
