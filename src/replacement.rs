//! Files that are written in full or not at all.

#[cfg(unix)]
use std::io::ErrorKind;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Writes a file in full or not at all: first under a temporary name in the same folder; then it is renamed. When the
/// function returns, the file is on the disk.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written there.
pub fn write_file(path: impl AsRef<Path>, content: &[u8]) -> Result<()> {
    Replacement::of(path.as_ref().to_owned(), content)?.commit()
}

/// A complete file under a temporary name, which only has to be renamed. If it is dropped, the temporary file is
/// removed.
pub(crate) struct Replacement {
    file: NamedTempFile,
    path: PathBuf,
}

impl Replacement {
    /// Prepares the file at `path` with what `write` puts into it; the folder must exist.
    pub fn new(path: PathBuf, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        // Temporary files are for their owner only, but this one will be kept: it gets the usual permissions. The umask
        // still applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder(&path)).map_err(Error::io("create", &path))?;
        let mut buffer = BufWriter::new(file.as_file());
        write(&mut buffer)?;
        buffer.flush().map_err(Error::io("write", &path))?;
        drop(buffer);
        // Otherwise a file system may write the new name before the content, and leave an empty file after a power
        // failure.
        file.as_file().sync_all().map_err(Error::io("write", &path))?;
        Ok(Self { file, path })
    }

    /// Prepares the file at `path` with the given content.
    pub fn of(path: PathBuf, content: &[u8]) -> Result<Self> {
        Self::new(path.clone(), |file| file.write_all(content).map_err(Error::io("write", path)))
    }

    /// Renames the file to its final name, replacing an older file.
    pub fn commit(self) -> Result<()> {
        self.file.persist(&self.path).map_err(|error| Error::io("replace", &self.path)(error.error))?;
        sync_folder(folder(&self.path))
    }
}

/// The folder that a file is in. The parent of a bare file name is empty, which stands for the current one.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// Makes a change of names in a folder permanent, if the system allows to open folders for that.
fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems do not support it.
        Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            return Err(Error::io("write", folder)(error));
        }
        _ => {}
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
