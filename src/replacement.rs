//! Files that are there in full or not at all.

#[cfg(unix)]
use std::io::ErrorKind;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Writes a file in full or not at all: first under a temporary name in the same folder, then in its place. When it returns, the
/// file is on the disk.
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
        let mut builder = tempfile::Builder::new();
        // Temporary files are for their owner only, these will not be temporary. The umask still applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder(&path)).map_err(Error::io("create", &path))?;
        let mut buffer = BufWriter::new(file.as_file());
        write(&mut buffer)?;
        buffer.flush().map_err(Error::io("write", &path))?;
        drop(buffer);
        // Else a file system may carry the new name out before the content, and leave an empty file when the power goes.
        file.as_file().sync_all().map_err(Error::io("write", &path))?;
        Ok(Self { file, path })
    }

    /// Prepares the file at `path` with the given content.
    pub fn of(path: PathBuf, content: &[u8]) -> Result<Self> {
        Self::new(path.clone(), |file| file.write_all(content).map_err(Error::io("write", path)))
    }

    /// Puts the file in its place, over what was there.
    pub fn commit(self) -> Result<()> {
        self.file.persist(&self.path).map_err(|error| Error::io("replace", &self.path)(error.error))?;
        sync_folder(folder(&self.path))
    }
}

/// The folder that a file is in. The parent of a bare file name is empty, which stands for the current one.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// Makes a change of names in a folder last, where the system lets folders be opened for that.
fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems know no such thing.
        Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            return Err(Error::io("write", folder)(error));
        }
        _ => {}
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
