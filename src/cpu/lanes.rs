//! Loops over slices of f32 that compilers vectorise, and the functions they need. [`vectorized`] compiles them for the
//! processor at hand (AVX-512, AVX2, NEON, or none of them) and chooses at run time; hence `#[inline(always)]`.

/// Elements that a loop keeps in flight: two AVX-512 registers, four of AVX2.
const LANES: usize = 32;

/// Runs a kernel with the widest instructions that the processor has.
pub(crate) fn vectorized<R>(kernel: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(kernel)
}

/// e^x for x up to 88, within 2 units in the last place; below -87 it stays at the smallest normal number.
///
/// `e^x = 2^n e^r` with n the nearest integer to x / ln 2, and a polynomial for e^r (Cephes' coefficients).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding and taking away 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, the first exact in the products below.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5.000_000_1e-1;
    let p = p * r * r + r + 1.0;
    p * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

/// The Gaussian distribution function Phi(x) and its density phi(x); Phi within 1e-7.
///
/// `Phi(-|x|) = erfc(|x| / sqrt 2) / 2`, with Chebyshev's approximation of ln(erfc(z) / t e^(z^2)) in t = 1 / (1 + z / 2)
/// (Numerical Recipes, `erfcc`).
#[inline(always)]
pub(crate) fn gaussian(x: f32) -> (f32, f32) {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let p = 0.170_872_77;
    let p = p * t - 0.822_152_23;
    let p = p * t + 1.488_515_87;
    let p = p * t - 1.135_203_98;
    let p = p * t + 0.278_868_07;
    let p = p * t - 0.186_288_06;
    let p = p * t + 0.096_784_18;
    let p = p * t + 0.374_091_96;
    let p = p * t + 1.000_023_68;
    let p = p * t - 1.265_512_23;
    let tail = 0.5 * t * exp(p - z * z);
    (if x < 0.0 { tail } else { 1.0 - tail }, FRAC_1_SQRT_2PI * exp(-z * z))
}

/// The largest element.
#[inline(always)]
pub(crate) fn maximum(values: &[f32]) -> f32 {
    fold(values, f32::NEG_INFINITY, |_, value| value, f32::max)
}

/// The sum of `map(index, element)` in a fixed order that depends on the length alone.
#[inline(always)]
pub(crate) fn sum(values: &[f32], map: impl Fn(usize, f32) -> f32) -> f32 {
    fold(values, 0.0, map, |a, b| a + b)
}

#[inline(always)]
fn fold(values: &[f32], start: f32, map: impl Fn(usize, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    let whole = values.len() - rest.len();
    for (chunk, values) in chunks.enumerate() {
        for lane in 0..LANES {
            lanes[lane] = join(lanes[lane], map(chunk * LANES + lane, values[lane]));
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        lanes[lane] = join(lanes[lane], map(whole + lane, *value));
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
