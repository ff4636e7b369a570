//! Which tokens of a batch are real.

use std::sync::{Arc, OnceLock};

use burn::{
    Tensor,
    tensor::{Bool, Device, TensorData},
};

use crate::{Result, device};

/// Which tokens of a batch are real: true at tokens, false at padding, [batch, length]. It is on the device, and on the host too,
/// where the tensors of a batch without its padding are planned.
///
/// Made from the host's own flags, the host never has to wait for the device to know them.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    tensor: Tensor<2, Bool>,
    /// The same, row by row, once the host knows it; one place for all clones.
    real: Arc<OnceLock<Vec<bool>>>,
}

impl AttentionMask {
    /// Puts the flags of a batch, row by row, on the device.
    ///
    /// # Panics
    /// If there are not `batch * length` flags.
    pub fn new(real: Vec<bool>, [batch, length]: [usize; 2], device: &Device) -> Self {
        let tensor = Tensor::from_data(TensorData::new(real.clone(), [batch, length]), device);
        Self { tensor, real: Arc::new(OnceLock::from(real)) }
    }

    /// The mask on the device, [batch, length].
    pub fn tensor(&self) -> &Tensor<2, Bool> {
        &self.tensor
    }

    /// The flags on the host, row by row. Those of a mask that was made from a tensor are read from the device, once.
    ///
    /// # Errors
    /// They cannot be read from the device.
    pub fn real(&self) -> Result<&[bool]> {
        if self.real.get().is_none() {
            let data = self.tensor.clone().try_into_data();
            let data = data.map_err(|error| device::unreadable(&self.tensor.device(), error))?;
            // Another clone may have read the same meanwhile.
            let _ = self.real.set(data.iter::<bool>().collect());
        }
        Ok(self.real.get().map_or(&[], Vec::as_slice))
    }
}

impl From<Tensor<2, Bool>> for AttentionMask {
    /// A mask that only the device knows, until the host has to.
    fn from(tensor: Tensor<2, Bool>) -> Self {
        Self { tensor, real: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_device_hold_the_same() {
        let device = Device::flex();
        let flags = vec![true, false, true, true, true, false];
        let of_host = AttentionMask::new(flags.clone(), [2, 3], &device);
        let of_device = AttentionMask::from(of_host.tensor().clone());
        for mask in [of_host, of_device] {
            assert_eq!(mask.tensor().dims(), [2, 3]);
            assert_eq!(mask.clone().real().unwrap(), flags);
            assert_eq!(mask.real.get(), Some(&flags), "clones read it once");
            assert_eq!(mask.tensor().to_data().try_to_vec::<bool>().unwrap(), flags);
        }
    }
}
