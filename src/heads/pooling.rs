//! From the states of a text's tokens to one vector, as sentence-transformers does it (Reimers and Gurevych 2019,
//! arXiv 1908.10084; its module `Pooling` is the reference).

use std::fmt;

use burn::{
    Tensor,
    tensor::{Bool, Int},
};

/// How the states of a text's tokens become one vector. Special tokens count, padding does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The state of the first token (`[CLS]`).
    Cls,
    /// The largest value in each dimension.
    Max,
    /// Their mean.
    #[default]
    Mean,
    /// Their sum over the square root of their number.
    MeanSqrtLen,
    /// Their mean with the weights 1, 2, 3, …: later tokens count more.
    WeightedMean,
    /// The state of the last token.
    LastToken,
}

impl Pooling {
    /// All of them, in the order in which sentence-transformers concatenates several.
    pub const ALL: [Self; 6] =
        [Self::Cls, Self::Max, Self::Mean, Self::MeanSqrtLen, Self::WeightedMean, Self::LastToken];

    /// Its name in sentence-transformers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLen => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }

    /// # Shapes
    /// - states: [batch, length, hidden]
    /// - mask: [batch, length], true at real tokens; none if all are real
    /// - output: [batch, hidden]
    pub(crate) fn pool(self, states: Tensor<3>, mask: Option<&Tensor<2, Bool>>) -> Tensor<2> {
        let [_, length, _] = states.dims();
        // 1 at real tokens, 0 at padding, [batch, length, 1]
        let real = match mask {
            Some(mask) => mask.clone().int().float().cast(states.dtype()).unsqueeze_dim::<3>(2),
            None => states.ones_like().narrow(2, 0, 1),
        };
        let filled = |value: f32| match mask {
            Some(mask) => {
                states.clone().mask_fill(mask.clone().bool_not().unsqueeze_dim::<3>(2).expand(states.dims()), value)
            }
            None => states.clone(),
        };
        let count = || real.clone().sum_dim(1); // [batch, 1, 1]
        let pooled = match self {
            Self::Cls => states.narrow(1, 0, 1),
            Self::Max => filled(f32::NEG_INFINITY).max_dim(1),
            Self::Mean => filled(0.0).sum_dim(1) / count(),
            Self::MeanSqrtLen => filled(0.0).sum_dim(1) / count().sqrt(),
            Self::WeightedMean => {
                let places = Tensor::<1, Int>::arange(1..length as i64 + 1, &states.device());
                let weights = places.float().cast(states.dtype()).reshape([1, length, 1]) * real.clone();
                (filled(0.0) * weights.clone()).sum_dim(1) / weights.sum_dim(1)
            }
            // Padding is on the right.
            Self::LastToken => match mask {
                Some(mask) => {
                    let shape = states.dims();
                    let count = mask.clone().int().sum_dim(1).expand([shape[0], length]);
                    let places = Tensor::<1, Int>::arange(1..length as i64 + 1, &states.device());
                    let others = places.unsqueeze::<2>().expand([shape[0], length]).not_equal(count);
                    states.mask_fill(others.unsqueeze_dim::<3>(2).expand(shape), 0.0).sum_dim(1)
                }
                None => states.narrow(1, length - 1, 1),
            },
        };
        pooled.squeeze_dim(1)
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::scores::rows;

    #[test]
    fn padding_is_not_pooled() {
        let device = Device::flex();
        let states = || Tensor::<3>::from_data([[[1.0, -2.0], [4.0, -5.0], [90.0, 90.0]]], &device);
        let mask = Tensor::<2, Bool>::from_data([[true, true, false]], &device);
        let root = 2f32.sqrt();
        for (pooling, expected) in [
            (Pooling::Cls, [1.0, -2.0]),
            (Pooling::Max, [4.0, -2.0]),
            (Pooling::Mean, [2.5, -3.5]),
            (Pooling::MeanSqrtLen, [5.0 / root, -7.0 / root]),
            (Pooling::WeightedMean, [3.0, -4.0]),
            (Pooling::LastToken, [4.0, -5.0]),
        ] {
            let pooled = rows(pooling.pool(states(), Some(&mask))).unwrap().remove(0);
            // One division of small numbers.
            assert!(pooled.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{pooling}: {pooled:?}");
            let alone = rows(pooling.pool(states().narrow(1, 0, 2), None)).unwrap().remove(0);
            assert!(pooled.iter().zip(alone).all(|(a, b)| (a - b).abs() < 1e-6), "{pooling}");
        }
    }
}
