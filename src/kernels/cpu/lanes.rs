//! Loops over slices of f32 that compilers vectorise, and the functions they need, for use in functions that are
//! [`vectorized!`](super::simd::vectorized).

use super::simd::Simd;

/// 1.5 * 2^23: what is added to it is rounded to an integer, to even in the middle, which then stands in the sum's lowest bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Elements that a sum keeps apart: two AVX2 registers, which was fastest of 8, 16 and 32.
const LANES: usize = 16;

/// e^x for x up to 88, within 2 units in the last place; below -87 it stays at e^-87, about 1e-38. NaN stays NaN.
///
/// `e^x = 2^n e^r` with n the nearest integer to x / ln 2, and a polynomial for e^r (Cephes' coefficients).
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: f32) -> f32 {
    // Written so that NaN passes, which `f32::max` would replace.
    let x = if x < -87.0 { -87.0 } else { x };
    let sum = simd.fused(x, std::f32::consts::LOG2_E, ROUND);
    let n = sum - ROUND;
    // ln 2 in two parts, the first exact in the products below.
    let r = simd.fused(n, -0.693_359_4, x);
    let r = simd.fused(n, 2.121_944_4e-4, r);
    let p = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let p = polynomial(simd, r, 1.987_569_1e-4, p);
    let p = simd.fused(p * r, r, r) + 1.0;
    // 2^n: the exponent of a float stands above 23 bits of fraction, 127 up. No conversion of n to an integer, which would
    // check for overflow.
    let exponent = sum.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    p * f32::from_bits(exponent << 23)
}

/// The polynomial of these coefficients, that of the highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: f32, highest: f32, others: [f32; N]) -> f32 {
    let mut sum = highest;
    for coefficient in others {
        sum = simd.fused(sum, x, coefficient);
    }
    sum
}

/// The Gaussian distribution function Phi(x) and its density phi(x); Phi within 1e-7.
///
/// `Phi(-|x|) = erfc(|x| / sqrt 2) / 2`, with Chebyshev's approximation of ln(erfc(z) / t e^(z^2)) in t = 1 / (1 + z / 2)
/// (Numerical Recipes, `erfcc`).
#[inline(always)]
pub(crate) fn gaussian<S: Simd>(simd: S, x: f32) -> (f32, f32) {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / simd.fused(0.5, z, 1.0);
    let p = [
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ];
    let p = polynomial(simd, t, 0.170_872_77, p);
    let square = z * z;
    let tail = 0.5 * t * exp(simd, p - square);
    (if x < 0.0 { tail } else { 1.0 - tail }, FRAC_1_SQRT_2PI * exp(simd, -square))
}

/// The largest element that is a number.
#[inline(always)]
pub(crate) fn maximum(values: &[f32]) -> f32 {
    let larger = |a, b| if b > a { b } else { a };
    fold(values, values, f32::NEG_INFINITY, |highest, value, _| larger(highest, value), larger)
}

/// The sum, in an order that depends on the length alone.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    sum_of(values, |value| value)
}

/// The sum of what is made of each element, in an order that depends on the length alone.
#[inline(always)]
pub(crate) fn sum_of(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    fold(values, values, 0.0, |sum, value, _| sum + of(value), |a, b| a + b)
}

/// The scalar product of two slices of one length, in an order that depends on the length alone.
#[inline(always)]
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f32 {
    fold(left, right, 0.0, |sum, left, right| sum + left * right, |a, b| a + b)
}

/// Steps through two slices of one length in lanes, then joins the lanes.
#[inline(always)]
fn fold(
    left: &[f32],
    right: &[f32],
    start: f32,
    step: impl Fn(f32, f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (left, right) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = left.remainder().iter().zip(right.remainder());
    for (left, right) in left.zip(right) {
        for (lane, (left, right)) in lanes.iter_mut().zip(left.iter().zip(right)) {
            *lane = step(*lane, *left, *right);
        }
    }
    for (lane, (left, right)) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, *left, *right);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::simd::Portable;

    #[test]
    fn exponentials_are_those_of_f64() {
        for step in -8700..=880 {
            let x = step as f32 * 0.01;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(Portable, x)) - expected).abs() / expected;
            // Two units in the last place.
            assert!(error < 2.4e-7, "e^{x} is off by {error:e}");
        }
        let exp = |x| exp(Portable, x);
        assert!(exp(-1e30) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn gaussian_values_are_the_known_ones() {
        let gaussian = |x| gaussian(Portable, x);
        // Phi at these points, from tables of 10 digits.
        for (x, phi) in
            [(0.0, 0.5), (0.5, 0.691_462_461_3), (1.0, 0.841_344_746_1), (2.0, 0.977_249_868_1), (4.0, 0.999_968_328_8)]
        {
            assert!((f64::from(gaussian(x).0) - phi).abs() < 2e-7, "Phi({x})");
            assert!((f64::from(gaussian(-x).0) - (1.0 - phi)).abs() < 2e-7, "Phi(-{x})");
        }
        assert!((gaussian(0.0).1 - 0.398_942_3).abs() < 1e-7);
        assert!((gaussian(1.5).1 - 0.129_517_6).abs() < 1e-7);
    }

    #[test]
    fn folds_see_every_element_once() {
        for length in [0, 1, 31, 32, 33, 100] {
            let values: Vec<f32> = (0..length).map(|index| (index % 7) as f32).collect();
            assert_eq!(sum(&values), values.iter().sum::<f32>());
            assert_eq!(dot(&values, &values), values.iter().map(|value| value * value).sum::<f32>());
            assert_eq!(maximum(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
