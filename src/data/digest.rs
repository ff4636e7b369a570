//! Digests of data files, for the record of a run.

use std::{fs::File, io, path::Path};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The SHA-256 of a file's bytes, in hexadecimal, as `sha256sum` prints it. The file is streamed, not held in memory.
///
/// # Errors
/// The file cannot be read.
pub fn file_digest(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).map_err(Error::io("read", path))?;
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::{super::lines::file, *};

    #[test]
    fn digests_are_sha_256() {
        // The examples of FIPS 180-4: "abc", and a million times "a" (more than any buffer holds).
        for (content, expected) in [
            ("abc".to_owned(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("a".repeat(1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ] {
            let (_folder, path) = file("a.txt", content);
            assert_eq!(file_digest(path).unwrap(), expected);
        }
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let (folder, _) = file("a.txt", "");
        for path in [folder.path().join("b.txt"), folder.path().to_owned()] {
            let error = file_digest(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot read {}", path.display())), "{error}");
        }
    }
}
