//! A row's residual and LayerNorm by the units of a cube.

use cubecl::{cube, prelude::*};

use crate::kernels::gpu::shared::{cube_sum, kept, row_of_bits};

/// Units of a cube, which share a row.
pub const UNITS: usize = 128;

/// A cube a row.
///
/// # Shapes
/// - x, residual, output, normal: [rows, width]; gamma, beta: \[width\]; scales: \[rows\]
#[cube(launch)]
pub fn forward<X: Float, F: Float>(
    x: &Tensor<X>,
    residual: &Tensor<F>,
    gamma: &Tensor<F>,
    beta: &Tensor<F>,
    output: &mut Tensor<F>,
    normal: &mut Tensor<F>,
    scales: &mut Tensor<f32>,
    first: u32,
    epsilon: f32,
    seed: u32,
    threshold: u32,
    keep: f32,
    #[comptime] width: usize,
    #[comptime] keeps: bool,
    #[comptime] drops: bool,
    #[comptime] planes: bool,
    #[define(X, F)] _dtypes: [ElemType; 2],
) {
    let parts = comptime!(width.div_ceil(UNITS));
    let row = first + CUBE_POS_X;
    let bits = row_of_bits(seed, 0u32, row);
    let start = row as usize * width;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut z = Array::<f32>::new(parts);
    let mut sum = 0.0f32;
    #[unroll]
    for part in 0..parts {
        let column = part * UNITS + UNIT_POS as usize;
        z[part] = 0.0f32;
        if column < width {
            let mut value = f32::cast_from(x[start + column]);
            if comptime!(drops) {
                value *= kept(bits, column as u32, threshold, keep);
            }
            z[part] = value + f32::cast_from(residual[start + column]);
            sum += z[part];
        }
    }
    let mean = cube_sum(sum, &mut shared, planes) / comptime!(width as f32);
    let mut squares = 0.0f32;
    #[unroll]
    for part in 0..parts {
        if part * UNITS + (UNIT_POS as usize) < width {
            z[part] -= mean;
            squares += z[part] * z[part];
        }
    }
    let variance = cube_sum(squares, &mut shared, planes) / comptime!(width as f32);
    let scale = 1.0f32 / f32::sqrt(variance + epsilon);
    #[unroll]
    for part in 0..parts {
        let column = part * UNITS + UNIT_POS as usize;
        if column < width {
            let n = z[part] * scale;
            output[start + column] = F::cast_from(n * f32::cast_from(gamma[column]) + f32::cast_from(beta[column]));
            if comptime!(keeps) {
                normal[start + column] = F::cast_from(n);
            }
        }
    }
    let first_unit = UNIT_POS == 0;
    if comptime!(keeps) && first_unit {
        scales[row as usize] = scale;
    }
}

/// A cube for every so many rows.
///
/// # Shapes
/// - gradient, normal, to_residual, to_x: [rows, width]; scales: \[rows\]; gamma: \[width\]
/// - to_gamma, to_beta: sums over each cube's rows, [cubes, width]
///
/// Without dropout the threshold is 0 and `keep` 1.
#[cube(launch)]
pub fn backward<X: Float, F: Float>(
    gradient: &Tensor<F>,
    normal: &Tensor<F>,
    scales: &Tensor<f32>,
    gamma: &Tensor<F>,
    to_residual: &mut Tensor<F>,
    to_x: &mut Tensor<X>,
    to_gamma: &mut Tensor<f32>,
    to_beta: &mut Tensor<f32>,
    rows: u32,
    seed: u32,
    threshold: u32,
    keep: f32,
    #[comptime] width: usize,
    #[comptime] apart: bool,
    #[comptime] planes: bool,
    #[define(X, F)] _dtypes: [ElemType; 2],
) {
    let parts = comptime!(width.div_ceil(UNITS));
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut factors = Array::<f32>::new(parts);
    let mut n = Array::<f32>::new(parts);
    let mut h = Array::<f32>::new(parts);
    let mut sums_of_gamma = Array::<f32>::new(parts);
    let mut sums_of_beta = Array::<f32>::new(parts);
    #[unroll]
    for part in 0..parts {
        let column = part * UNITS + UNIT_POS as usize;
        factors[part] = 0.0f32;
        n[part] = 0.0f32;
        h[part] = 0.0f32;
        sums_of_gamma[part] = 0.0f32;
        sums_of_beta[part] = 0.0f32;
        if column < width {
            factors[part] = f32::cast_from(gamma[column]);
        }
    }
    let mut row = CUBE_POS_X;
    while row < rows {
        let start = row as usize * width;
        let mut sum = 0.0f32;
        let mut product = 0.0f32;
        #[unroll]
        for part in 0..parts {
            let column = part * UNITS + UNIT_POS as usize;
            if column < width {
                let g = f32::cast_from(gradient[start + column]);
                n[part] = f32::cast_from(normal[start + column]);
                h[part] = g * factors[part];
                sum += h[part];
                product += h[part] * n[part];
                sums_of_gamma[part] += g * n[part];
                sums_of_beta[part] += g;
            }
        }
        let mean = cube_sum(sum, &mut shared, planes) / comptime!(width as f32);
        let along = cube_sum(product, &mut shared, planes) / comptime!(width as f32);
        let scale = scales[row as usize];
        let bits = row_of_bits(seed, 0u32, row);
        #[unroll]
        for part in 0..parts {
            let column = part * UNITS + UNIT_POS as usize;
            if column < width {
                let dz = (h[part] - mean - n[part] * along) * scale;
                to_residual[start + column] = F::cast_from(dz);
                if comptime!(apart) {
                    to_x[start + column] = X::cast_from(dz * kept(bits, column as u32, threshold, keep));
                }
            }
        }
        row += CUBE_COUNT_X;
    }
    #[unroll]
    for part in 0..parts {
        let column = part * UNITS + UNIT_POS as usize;
        if column < width {
            let at = CUBE_POS_X as usize * width + column;
            to_gamma[at] = sums_of_gamma[part];
            to_beta[at] = sums_of_beta[part];
        }
    }
}
