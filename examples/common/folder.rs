//! Where a model is.

use std::path::PathBuf;

use deberta_burn::{Result, checkpoint::hub};

/// The checkpoint's folder. What is no folder here but has the form of a repository's name is downloaded.
///
/// # Errors
/// A repository that cannot be had.
pub fn model_folder(name: &str, revision: Option<&str>) -> Result<PathBuf> {
    let folder = PathBuf::from(name);
    let is_repository = name.split('/').count() == 2 && !name.starts_with(['.', '/', '~']);
    match is_repository && !folder.is_dir() {
        true => hub::fetch(name, revision),
        false => Ok(folder),
    }
}
