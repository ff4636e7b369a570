//! Fused attention equal to the composed definition: context and every gradient, for all position terms, attention spans, buckets,
//! lengths and padding.

mod common;

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use common::cpu_devices;
use deberta_burn::{
    heads::MaskedPositions,
    model::{
        AttentionMask,
        attention::{
            PositionProjections, composed, fused,
            operands::{AttentionOperands, PositionIndex, RelativeOperands},
            relative_position::{RelativeIndex, RelativePositions},
        },
        dropout::{Dropout, keyed},
        token_layout::{TokenLayout, Unpadding},
    },
};
use proptest::prelude::*;

/// One attention problem.
#[derive(Clone, Debug)]
struct Case {
    lengths: Vec<usize>,
    heads: usize,
    head_size: usize,
    c2p: bool,
    p2c: bool,
    positions: RelativePositions,
    dropout_seed: u64,
    /// Every so many tokens of a sequence one is a query; all of them if none.
    every: Option<usize>,
}

/// Inputs in the order query, key, value, Kr, Qr, then the factors whose product with the context is the loss.
struct Inputs {
    tensors: Vec<Tensor<3>>,
    weights: Tensor<3>,
}

impl Case {
    fn padded_length(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    fn index(&self) -> RelativeIndex {
        self.positions.index(self.padded_length(), self.padded_length())
    }

    fn inputs(&self, device: &Device, dtype: DType) -> Inputs {
        let hidden = self.heads * self.head_size;
        // Not the device's own random numbers: tests run side by side and share their state.
        let mut state = 7u32;
        let mut random = |shape: [usize; 3]| {
            let value = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 22) as f32 - 2.0
            };
            let values: Vec<f32> = std::iter::repeat_with(value).take(shape.iter().product()).collect();
            Tensor::<3>::from_data(TensorData::new(values, shape), (device, dtype))
        };
        let content = [self.lengths.len(), self.padded_length(), hidden];
        let table = [1, self.index().rows().len(), hidden];
        let tensors = [content, content, content, table, table].map(|shape| random(shape).require_grad());
        Inputs { tensors: tensors.to_vec(), weights: random(content) }
    }

    fn mask(&self, device: &Device) -> Option<AttentionMask> {
        let length = self.padded_length();
        let real: Vec<bool> = self.lengths.iter().flat_map(|real| (0..length).map(move |at| at < *real)).collect();
        let shape = [self.lengths.len(), length];
        real.contains(&false).then(|| AttentionMask::new(real, shape, device))
    }

    /// Where the queries are: not the same number in each sequence.
    fn query_positions(&self) -> Option<MaskedPositions> {
        let every = self.every?;
        let sequences = self.lengths.iter().enumerate();
        let of = |(number, length): (usize, &usize)| (number % every..*length).step_by(every).collect::<Vec<_>>();
        Some(MaskedPositions::new(self.padded_length(), sequences.map(of)))
    }

    /// Context and gradients of the five inputs.
    fn run(&self, fused: bool, device: &Device, dropout: &Dropout) -> Vec<Vec<f32>> {
        self.run_in(DType::F32, fused, device, dropout)
    }

    fn run_in(&self, dtype: DType, fused: bool, device: &Device, dropout: &Dropout) -> Vec<Vec<f32>> {
        let Inputs { tensors, weights } = self.inputs(device, dtype);
        let mask = self.mask(device);
        let layout = match mask.as_ref().filter(|_| fused).and_then(Unpadding::new) {
            Some(unpadding) => TokenLayout::Unpadded(Arc::new(unpadding)),
            None => TokenLayout::Padded(mask.clone()),
        };
        let arrange = |states: Tensor<3>| match &layout {
            TokenLayout::Unpadded(unpadding) => unpadding.unpad(states),
            TokenLayout::Padded(_) => states,
        };
        let table = |on: bool, at: usize| on.then(|| tensors[at].clone().squeeze_dim::<2>(0));
        let relative = (self.c2p || self.p2c).then(|| RelativeOperands {
            positions: PositionProjections { key: table(self.c2p, 3), query: table(self.p2c, 4), first_row: 0 },
            index: PositionIndex::new(self.index(), device),
        });
        let terms = 1 + usize::from(self.c2p) + usize::from(self.p2c);
        let query_positions = self.query_positions();
        let query = match &query_positions {
            Some(query_positions) => layout.select(arrange(tensors[0].clone()), query_positions),
            None => arrange(tensors[0].clone()),
        };
        let operands = AttentionOperands {
            query,
            key: arrange(tensors[1].clone()),
            value: arrange(tensors[2].clone()),
            heads: self.heads,
            relative,
            layout: &layout,
            query_positions: query_positions.as_ref(),
            scale: 1.0 / ((self.head_size * terms) as f64).sqrt(),
            dropout,
            rounds: false,
        };
        let context = keyed(self.dropout_seed, || match fused {
            true => fused::attend(operands, None, false).0,
            false => composed::attend(operands, None).0,
        });
        let (context, weights) = match &query_positions {
            Some(query_positions) => (context, TokenLayout::Padded(None).select(weights, query_positions)),
            None => (layout.restore(context), weights),
        };
        let gradients = (context.clone() * weights).sum().backward();
        let mut outputs = vec![values(context.inner())];
        let used = [true, true, true, self.c2p, self.p2c];
        for (tensor, _) in tensors.iter().zip(used).filter(|(_, used)| *used) {
            outputs.push(values(tensor.grad(&gradients).expect("a gradient")));
        }
        outputs
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (backend, device) in cpu_devices() {
            let device = device.autodiff();
            let dropout = Dropout::new(0.0);
            let (fused, composed) = (self.run(true, &device, &dropout), self.run(false, &device, &dropout));
            for (which, (fused, composed)) in fused.iter().zip(&composed).enumerate() {
                // Relative to the largest element: each is a sum of up to thousands of products in another order.
                let largest = composed.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
                for (index, (fused, composed)) in fused.iter().zip(composed).enumerate() {
                    prop_assert!(
                        (fused - composed).abs() <= 1e-5 * largest,
                        "{backend}, output {which}, element {index}: {fused} != {composed} in {self:?}"
                    );
                }
            }
        }
        Ok(())
    }
}

fn values(tensor: Tensor<3>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("numbers")
}

fn positions() -> impl Strategy<Value = RelativePositions> {
    prop_oneof![
        (1usize..40).prop_map(|span| RelativePositions { attention_span: span, buckets: None, max_distance: span }),
        (2usize..40, 1usize..200).prop_map(|(buckets, more)| RelativePositions {
            attention_span: buckets,
            buckets: Some(buckets),
            max_distance: buckets / 2 + 1 + more,
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fused_equals_composed(
        lengths in prop::collection::vec(1usize..90, 1..4),
        heads in 1usize..4,
        head_size in 1usize..20,
        (c2p, p2c) in (any::<bool>(), any::<bool>()),
        positions in positions(),
        every in prop::option::of(1usize..9),
    ) {
        let case = Case { lengths, heads, head_size, c2p, p2c, positions, dropout_seed: 0, every };
        prop_assume!(case.query_positions().is_none_or(|positions| !positions.is_empty()));
        case.check()?;
    }
}

/// The published rule at lengths where blocks, far buckets and the clamp come into play.
#[test]
fn long_sequences() {
    let positions = RelativePositions { attention_span: 256, buckets: Some(256), max_distance: 512 };
    for lengths in [vec![1], vec![2, 1], vec![129], vec![300, 513], vec![1100]] {
        let case =
            Case { lengths, heads: 2, head_size: 8, c2p: true, p2c: true, positions, dropout_seed: 0, every: None };
        case.check().unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn two_thousand_tokens() {
    let positions = RelativePositions { attention_span: 256, buckets: Some(256), max_distance: 512 };
    let case = Case {
        lengths: vec![2048],
        heads: 1,
        head_size: 16,
        c2p: true,
        p2c: true,
        positions,
        dropout_seed: 0,
        every: None,
    };
    case.check().unwrap_or_else(|error| panic!("{error}"));
}

/// The fused kernel and the composed definition, each in f32, against the definition in f64.
#[test]
fn both_equal_f64() {
    let positions = RelativePositions { attention_span: 16, buckets: Some(16), max_distance: 64 };
    let dropout = Dropout::new(0.0);
    for lengths in [vec![1], vec![7, 3], vec![64, 33], vec![200]] {
        let case =
            Case { lengths, heads: 2, head_size: 8, c2p: true, p2c: true, positions, dropout_seed: 0, every: None };
        for (backend, device) in cpu_devices() {
            let device = device.autodiff();
            let exact = case.run_in(DType::F64, false, &device, &dropout);
            for fused in [true, false] {
                for (which, (found, exact)) in case.run(fused, &device, &dropout).iter().zip(&exact).enumerate() {
                    let largest = exact.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
                    let difference = found.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    // Sums of up to 200 products, rounded to 24 bits one after the other.
                    let close = difference <= 5e-6 * largest;
                    assert!(close, "{backend}, fused {fused}, output {which}: off by {difference:e} of {largest}");
                }
            }
        }
    }
}

/// A diverged model shows: what is not a number stays so in both.
#[test]
fn nan_is_not_hidden() {
    for (backend, device) in cpu_devices() {
        let states = |value: f32| Tensor::<3>::full([1, 20, 8], value, &device);
        let (layout, dropout) = (TokenLayout::Padded(None), Dropout::new(0.0));
        let operands = || AttentionOperands {
            query: states(1.0),
            key: states(f32::NAN),
            value: states(1.0),
            heads: 2,
            relative: None,
            layout: &layout,
            query_positions: None,
            scale: 0.5,
            dropout: &dropout,
            rounds: false,
        };
        for context in [fused::attend(operands(), None, false).0, composed::attend(operands(), None).0] {
            assert!(values(context).iter().all(|value| value.is_nan()), "{backend}");
        }
    }
}

/// Queries at some positions get what they get among all queries, also where there is no query at all in a sequence.
#[test]
fn query_positions_are_a_selection() {
    let positions = RelativePositions { attention_span: 16, buckets: Some(16), max_distance: 64 };
    let dropout = Dropout::new(0.0);
    for lengths in [vec![150], vec![40, 1, 23], vec![1, 1, 1]] {
        let all =
            Case { lengths, heads: 2, head_size: 8, c2p: true, p2c: true, positions, dropout_seed: 0, every: None };
        let some = Case { every: Some(3), ..all.clone() };
        for (backend, device) in cpu_devices() {
            let device = device.autodiff();
            let query_positions = some.query_positions().unwrap();
            for fused in [true, false] {
                let [all, some] = [&all, &some].map(|case| case.run(fused, &device, &dropout).swap_remove(0));
                let rows = query_positions.rows(&device).into_data().convert::<i64>().try_to_vec::<i64>().unwrap();
                assert_eq!(some.len(), 16 * rows.len());
                for (query, row) in rows.into_iter().enumerate() {
                    let (found, expected) = (&some[16 * query..][..16], &all[16 * row as usize..][..16]);
                    // The same sums, in blocks of other sizes.
                    let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-5);
                    assert!(close, "{backend}, fused {fused}, query {query}: {found:?} != {expected:?}");
                }
            }
        }
    }
}

/// A batch's sequence does not depend on its neighbours, to the bit.
#[test]
fn batch_equals_single() {
    let positions = RelativePositions { attention_span: 16, buckets: Some(16), max_distance: 64 };
    let (_, device) = cpu_devices()[0].clone();
    let device = device.autodiff();
    let dropout = Dropout::new(0.0);
    let pair = Case {
        lengths: vec![40, 40],
        heads: 2,
        head_size: 8,
        c2p: true,
        p2c: true,
        positions,
        dropout_seed: 0,
        every: None,
    };
    let both = &pair.run(true, &device, &dropout)[0];
    let ragged = Case { lengths: vec![40, 23], ..pair.clone() };
    let ragged = &ragged.run(true, &device, &dropout)[0];
    assert_eq!(both[..both.len() / 2], ragged[..ragged.len() / 2]);
}

/// Dropout keeps the mean, acts in training only, and repeats with the seed.
#[test]
fn dropout_is_unbiased_and_repeatable() {
    let positions = RelativePositions { attention_span: 16, buckets: None, max_distance: 16 };
    let case = Case {
        lengths: vec![64, 50],
        heads: 2,
        head_size: 8,
        c2p: true,
        p2c: true,
        positions,
        dropout_seed: 0,
        every: None,
    };
    let none = Dropout::new(0.0);
    let some = Dropout::new(0.4);
    for (backend, device) in cpu_devices() {
        let training = device.clone().autodiff();
        let clean = case.run(true, &training, &none);
        let first = case.run(true, &training, &some);
        assert_eq!(first, case.run(true, &training, &some), "{backend}: the same seed");
        assert_ne!(first[0], clean[0], "{backend}: dropout acts");
        let runs = 300u16;
        let mut mean = vec![0.0; clean[0].len()];
        for seed in 0..runs {
            let context = &Case { dropout_seed: seed.into(), ..case.clone() }.run(true, &training, &some)[0];
            for (mean, value) in mean.iter_mut().zip(context) {
                *mean += value / f32::from(runs);
            }
        }
        // A context is a mean of values of size 1 with weights p; the mask's deviation is sqrt(0.4 / 0.6 sum p^2), below 0.8,
        // so the mean of 300 stays within 5 deviations of 0.8 / sqrt(300) = 0.046.
        let worst = mean.iter().zip(&clean[0]).map(|(mean, clean)| (mean - clean).abs()).fold(0.0, f32::max);
        assert!(worst < 0.25, "{backend}: off by {worst}");
    }
}
