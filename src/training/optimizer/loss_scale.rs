//! The factor that keeps gradients within f16's range (Micikevicius and others, "Mixed precision training", ICLR 2018, section
//! 3.2).

use burn::tensor::FloatDType;

/// Multiplies the loss, and so every gradient; the optimiser divides the gradients again. In f16 the factor doubles
/// after some steps, and is halved if a gradient overflows. Other types have the range of f32 and need no factor. It is
/// a power of two, so that it causes no rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::training) enum LossScale {
    /// Always 1.
    None,
    /// For f16: the factor, and the steps since it changed.
    Moving { factor: f64, steps: usize },
}

impl LossScale {
    /// Steps without overflow after which the factor doubles, as in torch's `GradScaler`.
    const PATIENCE: usize = 2000;
    /// The factor at the start, the same.
    const FIRST: f64 = 65536.0;

    /// The scale for gradients that are computed in this type; none stands for f32.
    pub fn of(compute_type: Option<FloatDType>) -> Self {
        match compute_type {
            Some(FloatDType::F16) => Self::Moving { factor: Self::FIRST, steps: 0 },
            _ => Self::None,
        }
    }

    /// The factor of the next step.
    pub fn factor(self) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Moving { factor, .. } => factor,
        }
    }

    /// Adapts the factor after a step; `finite` says whether its gradients were.
    pub fn update(&mut self, finite: bool) {
        if let Self::Moving { factor, steps } = self {
            *steps += 1;
            if !finite {
                (*factor, *steps) = ((*factor / 2.0).max(1.0), 0);
            } else if *steps == Self::PATIENCE {
                (*factor, *steps) = (*factor * 2.0, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_on_overflow_and_rises_after_a_while() {
        let mut scale = LossScale::of(Some(FloatDType::F16));
        scale.update(false);
        assert_eq!(scale.factor(), LossScale::FIRST / 2.0);
        (1..LossScale::PATIENCE).for_each(|_| scale.update(true));
        assert_eq!(scale.factor(), LossScale::FIRST / 2.0);
        scale.update(true);
        assert_eq!(scale, LossScale::Moving { factor: LossScale::FIRST, steps: 0 });
        (0..50).for_each(|_| scale.update(false));
        assert_eq!(scale.factor(), 1.0);
        let mut none = LossScale::of(Some(FloatDType::BF16));
        none.update(false);
        assert_eq!((none, none.factor()), (LossScale::None, 1.0));
    }
}
