//! A digest of a checkpoint's weights, whatever files they are in.

use sha2::{Digest, Sha256};

use super::Checkpoint;
use crate::{Error, Result};

impl Checkpoint {
    /// The SHA-256 of all tensors, their names, types, shapes and values, in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor cannot be read.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for tensor in self.stored() {
            hash.update(format!("{} {:?} {:?}\n", tensor.name, tensor.dtype, &tensor.shape[..]));
            let bytes = tensor
                .to_bytes()
                .map_err(|error| Error::tensor(self.folder(), &tensor.name, format!("{error}; copy the file again")))?;
            hash.update(&bytes[..]);
        }
        Ok(format!("{:x}", hash.finalize()))
    }
}
