use proptest::prelude::*;

use super::*;
use crate::kernels::cpu::{
    packed::PackedWeight,
    panels::Panels,
    product::{Finish, Start},
    rotation,
};

/// Numbers that quantise badly.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    Even,
    /// All are the largest: every product is as large as can be.
    Edge,
    Zeros,
    /// One is a thousand times the others.
    Outlier,
    /// Down to denormal ones.
    Tiny,
    Huge,
}

fn numbers(count: usize, seed: usize, pattern: Pattern) -> Vec<f32> {
    let even = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
    let number = |i: usize| match pattern {
        Pattern::Even => even(i),
        Pattern::Edge => {
            if seed.is_multiple_of(2) || i.is_multiple_of(3) {
                1.0
            } else {
                -1.0
            }
        }
        Pattern::Zeros => 0.0,
        Pattern::Outlier => {
            if i % 97 == 5 {
                1000.0
            } else {
                even(i)
            }
        }
        Pattern::Tiny => even(i) * 1e-38,
        Pattern::Huge => even(i) * 1e18,
    };
    (0..count).map(number).collect()
}

fn pattern() -> impl Strategy<Value = Pattern> {
    use Pattern::*;
    prop_oneof![3 => Just(Even), 1 => Just(Edge), 1 => Just(Zeros), 1 => Just(Outlier), 1 => Just(Tiny), 1 => Just(Huge)]
}

/// Scale and integers of each block of a row or column, by the definition.
fn quantised<K: Kind>(numbers: &[f32], range: f32, inverse: impl Fn(f32, f32) -> f32) -> Vec<(f32, Vec<i64>)> {
    let block = |numbers: &[f32]| {
        let largest = numbers.iter().fold(0.0, |largest: f32, number| largest.max(number.abs()));
        if largest < 1e-30 {
            return (0.0, vec![0; numbers.len()]);
        }
        let scale = largest / range;
        let integer = |number: &f32| (number * inverse(largest, scale)).round_ties_even() as i64;
        (scale, numbers.iter().map(integer).collect())
    };
    numbers.chunks(K::DEPTH).map(block).collect()
}

/// Numbers, rotated block by block if the format does that.
fn rotated<K: Kind>(numbers: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut numbers: Vec<_> = numbers.collect();
    if K::ROTATES {
        numbers.chunks_mut(K::DEPTH).for_each(|block| rotation::rotate(block, 1));
    }
    numbers
}

/// The instruction sets that multiply such integers; for tiles those that have a matrix unit, and two that do its work.
fn sets<K: Kind>() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|isa| match K::AMX {
        Some(_) => isa.multiplies_tiles() || [Isa::narrowest(), Isa::widest()].contains(isa),
        None => K::GROUP == Words::GROUP || isa.multiplies_bytes(),
    })
}

/// Compares the products of every instruction set, to the bit, with exact sums, and these with products of f64.
fn are_exact<K: Kind>(
    [rows, inner, columns]: [usize; 3],
    [x_pattern, weight_pattern]: [Pattern; 2],
    biased: bool,
) -> Result<(), TestCaseError> {
    let (x, weight) = (numbers(rows * inner, 2, x_pattern), numbers(inner * columns, 3, weight_pattern));
    let bias = numbers(columns, 1, Pattern::Even);
    let turned_weight = match K::ROTATES {
        true => rotation::rotated(Matrix::new(&weight, 0, inner, columns, columns), K::DEPTH),
        false => weight.clone(),
    };
    let states: Vec<_> = x
        .chunks(inner)
        .map(|row| quantised::<K>(&rotated::<K>(row.iter().copied()), K::STATES, |largest, _| K::STATES / largest))
        .collect();
    let weights: Vec<_> = (0..columns)
        .map(|column| {
            let numbers: Vec<_> = turned_weight.iter().skip(column).step_by(columns).copied().collect();
            quantised::<K>(&numbers, K::WEIGHTS, |_, scale| 1.0 / scale)
        })
        .collect();
    let expected: Vec<f32> = (0..rows * columns)
        .map(|i| {
            let start = if biased { bias[i % columns] } else { 0.0 };
            let blocks = states[i / columns].iter().zip(&weights[i % columns]);
            blocks.fold(start, |sum, ((state_scale, states), (weight_scale, weights))| {
                let exact: i64 = states.iter().zip(weights).map(|(state, weight)| state * weight).sum();
                sum + exact as f32 * (state_scale * weight_scale)
            })
        })
        .collect();
    for i in (0..rows * columns).step_by(1 + rows * columns / 50) {
        let (row, column) = (i / columns, i % columns);
        let products = (0..inner).map(|k| f64::from(x[row * inner + k]) * f64::from(weight[k * columns + column]));
        let exact = products.sum::<f64>() + if biased { f64::from(bias[column]) } else { 0.0 };
        // Each factor is off by half a step, and the sums by as many roundings of their size as there are blocks; 1e-6 where
        // factors are too small to count.
        let (mut bound, mut size) = (1e-6, 0.0);
        for ((state_scale, states), (weight_scale, weights)) in states[row].iter().zip(&weights[column]) {
            let step = f64::from(*state_scale) * f64::from(*weight_scale);
            for (state, weight) in states.iter().zip(weights) {
                bound += 0.5001 * step * (state.abs() + weight.abs() + 1) as f64;
                size += step * (state * weight).abs() as f64;
            }
        }
        bound += 1e-6 * size;
        prop_assert!((f64::from(expected[i]) - exact).abs() <= bound, "{} instead of {exact}", expected[i]);
    }
    for isa in sets::<K>() {
        let panels = Panels::<Integers<K>>::new(isa, Matrix::new(&weight, 0, inner, columns, columns));
        let mut rounded: Vec<f32> = (0..inner * columns)
            .map(|i| {
                let (scale, integers) = &weights[i % columns][i / columns / K::DEPTH];
                integers[i / columns % K::DEPTH] as f32 * scale
            })
            .collect();
        if K::ROTATES {
            rotation::rotate_back(&mut rounded, columns, K::DEPTH);
        }
        prop_assert!(panels.unpack() == rounded, "{isa}: the weight has changed");
        let mut output = vec![f32::NAN; rows * columns];
        panels.map(&x, if biased { Start::Bias(&bias) } else { Start::Zero }, Finish::Sums, &mut output);
        for (found, expected) in output.iter().zip(&expected) {
            prop_assert!(found == expected, "{isa}: {found} instead of {expected}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_instruction_set_has_the_exact_sums(
        rows in 1usize..258,
        // Around the lengths of groups and blocks.
        inner in prop_oneof![1usize..20, 250usize..262, 500usize..520, 1020usize..1030],
        columns in 1usize..70,
        patterns in [pattern(), pattern()],
        biased: bool,
    ) {
        are_exact::<Words>([rows, inner, columns], patterns, biased)?;
        are_exact::<Bytes<false>>([rows, inner, columns], patterns, biased)?;
        are_exact::<WidenedBytes>([rows, inner, columns], patterns, biased)?;
        are_exact::<Bytes<true>>([rows, inner, columns], patterns, biased)?;
    }
}

#[test]
fn the_largest_sums_fit() {
    for inner in [256, 1024, 3072] {
        are_exact::<Words>([13, inner, 33], [Pattern::Edge; 2], false).unwrap();
        are_exact::<Bytes<false>>([13, inner, 33], [Pattern::Edge; 2], false).unwrap();
        are_exact::<WidenedBytes>([13, inner, 33], [Pattern::Edge; 2], false).unwrap();
        are_exact::<Bytes<true>>([13, inner, 33], [Pattern::Edge; 2], false).unwrap();
    }
}

#[test]
fn numbers_that_are_none_stay_in_their_row_and_column() {
    fn check<K: Kind>() {
        sets::<K>().for_each(check_set::<K>);
    }

    fn check_set<K: Kind>(isa: Isa) {
        let (mut x, mut weight) = (numbers(13 * 41, 2, Pattern::Even), numbers(41 * 33, 3, Pattern::Even));
        for (row, value) in
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::from_bits(1)].into_iter().enumerate()
        {
            x[row * 41 + 7] = value;
        }
        weight[5 * 33 + 30] = f32::NAN;
        weight[6 * 33 + 31] = f32::INFINITY;
        let mut output = vec![0.0; 13 * 33];
        let panels = Panels::<Integers<K>>::new(isa, Matrix::new(&weight, 0, 41, 33, 33));
        panels.map(&x, Start::Zero, Finish::Sums, &mut output);
        for (i, value) in output.iter().enumerate() {
            let expected = i / 33 < 3 || matches!(i % 33, 30 | 31);
            assert_eq!(value.is_nan(), expected, "{isa}: {value} in row {}, column {}", i / 33, i % 33);
            assert!(expected || value.is_finite(), "{isa}: {value}");
        }
    }
    check::<Words>();
    check::<Bytes<false>>();
    check::<WidenedBytes>();
    check::<Bytes<true>>();
}
