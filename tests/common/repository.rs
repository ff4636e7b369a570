//! Files that are in the repository and not in the published package.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

/// A file or folder of the repository, named from its root.
///
/// # Panics
/// If it is not there, as in the published package.
pub fn repository(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let advice = "the published package has neither fixtures nor weights; run the tests in a clone of the repository";
    assert!(path.exists(), "{} is missing: {advice}", path.display());
    path
}

/// A folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    repository(&format!("tests/fixtures/{name}"))
}
