//! Attention of one layer on a device, between its projections: its errors against the definition in f64, and its times.

use burn::{
    Tensor,
    tensor::{DType, Device, TensorData},
};
use deberta_burn::{
    config::PositionTerms,
    heads::MaskedPositions,
    model::{
        AttentionMask,
        attention::{
            PositionProjections, composed, fused,
            operands::{AttentionOperands, PositionIndex, RelativeOperands},
            relative_position::RelativePositions,
        },
        dropout::{Dropout, keyed},
        token_layout::{TokenLayout, Unpadding},
    },
};
use std::sync::Arc;

/// DeBERTa-v3's rule from distances to rows.
pub const V3: RelativePositions = RelativePositions { attention_span: 256, buckets: Some(256), max_distance: 512 };

/// A batch of sequences to attend in.
#[derive(Clone, Debug)]
pub struct Case {
    /// Tokens of each sequence.
    pub lengths: Vec<usize>,
    /// Where the queries are, if not at every token.
    pub queries: Option<Vec<Vec<usize>>>,
    /// Number of heads, and the size of one.
    pub heads: usize,
    pub head_size: usize,
    /// From distances to rows.
    pub rule: RelativePositions,
    /// The position terms in use.
    pub terms: PositionTerms,
    /// Probability of dropping a probability.
    pub dropout: f64,
}

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// The definition.
    Composed,
    /// What the crate chooses for the device.
    Fused,
}

/// A case's numbers on a device.
pub struct Inputs {
    states: [Tensor<3>; 3],
    tables: [Tensor<2>; 2],
    weight: Tensor<3>,
    index: PositionIndex,
    layout: TokenLayout,
    query_positions: Option<MaskedPositions>,
}

impl Inputs {
    /// What the context is weighted with.
    pub fn weight(&self) -> Tensor<3> {
        self.weight.clone()
    }
}

impl Case {
    /// Every term, no dropout, after v3's rule.
    pub fn new(lengths: &[usize], heads: usize, head_size: usize) -> Self {
        let terms = PositionTerms { c2p: true, p2c: true };
        Self { lengths: lengths.to_vec(), queries: None, heads, head_size, rule: V3, terms, dropout: 0.0 }
    }

    fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Numbers in a type, the same on each device; `seed` draws others.
    pub fn inputs(&self, implementation: Implementation, device: &Device, dtype: DType, seed: u64) -> Inputs {
        let (batch, length, hidden) = (self.lengths.len(), self.longest(), self.heads * self.head_size);
        // Rounded to bf16, which every type holds exactly but for the range of f16, which they stay in.
        let values = |part: u64, rows: usize| -> Vec<f32> {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ part.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
            let mut uniform = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 24) as f32
            };
            let value = |_| f32::from_bits(((uniform() + uniform() + uniform() - 1.5) * 2.0).to_bits() & 0xFFFF_0000);
            (0..rows * hidden).map(value).collect()
        };
        let rows = self.rule.index(length, length).whole_rows(0, 2 * self.rule.attention_span).len();
        let tensor = |part, shape: [usize; 3], tracked: bool| {
            let data = TensorData::new(values(part, shape[0] * shape[1]), shape);
            let tensor = Tensor::<3>::from_data(data, (device, dtype));
            if tracked && device.is_autodiff() { tensor.require_grad() } else { tensor }
        };
        let queries = self.queries.as_ref().map_or(0, |queries| queries.iter().map(Vec::len).sum());
        let of_queries = if queries > 0 { [1, queries, hidden] } else { [batch, length, hidden] };
        let table = |part| {
            let data = TensorData::new(values(part, rows), [rows, hidden]);
            let tensor = Tensor::<2>::from_data(data, (device, dtype));
            if device.is_autodiff() { tensor.require_grad() } else { tensor }
        };
        let mask = (self.lengths.iter().any(|tokens| *tokens < length)).then(|| {
            let real = self.lengths.iter().flat_map(|tokens| (0..length).map(move |token| token < *tokens));
            AttentionMask::new(real.collect(), [batch, length], device)
        });
        let layout = match (&mask, implementation) {
            (Some(mask), Implementation::Fused) => {
                TokenLayout::Unpadded(Arc::new(Unpadding::new(mask).expect("padding at the end")))
            }
            _ => TokenLayout::Padded(mask),
        };
        Inputs {
            states: [
                tensor(1, of_queries, true),
                tensor(2, [batch, length, hidden], true),
                tensor(3, [batch, length, hidden], true),
            ],
            tables: [table(4), table(5)],
            weight: tensor(6, of_queries, false),
            index: PositionIndex::new(self.rule.index(length, length), device),
            layout,
            query_positions: self.queries.as_ref().map(|queries| MaskedPositions::new(length, queries)),
        }
    }

    /// The context, of the query's shape.
    pub fn attend(&self, implementation: Implementation, inputs: &Inputs) -> Tensor<3> {
        let [query, key, value] = inputs.states.clone();
        let pack = |states: Tensor<3>| match &inputs.layout {
            TokenLayout::Unpadded(unpadding) => unpadding.unpad(states),
            TokenLayout::Padded(_) => states,
        };
        let query = if self.queries.is_some() { query } else { pack(query) };
        let [position_key, position_query] = inputs.tables.clone();
        let dropout = Dropout::new(self.dropout);
        let terms = 1 + usize::from(self.terms.c2p) + usize::from(self.terms.p2c);
        let operands = AttentionOperands {
            query,
            key: pack(key),
            value: pack(value),
            heads: self.heads,
            relative: (terms > 1).then(|| RelativeOperands {
                positions: PositionProjections {
                    key: self.terms.c2p.then_some(position_key),
                    query: self.terms.p2c.then_some(position_query),
                    first_row: 0,
                },
                index: inputs.index.clone(),
            }),
            query_positions: inputs.query_positions.as_ref(),
            layout: &inputs.layout,
            scale: 1.0 / ((self.head_size * terms) as f64).sqrt(),
            dropout: &dropout,
            rounds: false,
        };
        let context = keyed(7, || match implementation {
            Implementation::Composed => composed::attend(operands, None).0,
            Implementation::Fused => fused::attend(operands, None, false).0,
        });
        if self.queries.is_some() { context } else { inputs.layout.restore(context) }
    }

    /// Context and the gradients of query, key, value, and both tables, of a weighted sum of the context, each with its name. The
    /// device must be one with gradients.
    pub fn results(
        &self,
        implementation: Implementation,
        device: &Device,
        dtype: DType,
        seed: u64,
    ) -> Vec<(&'static str, Vec<f64>)> {
        let inputs = self.inputs(implementation, device, dtype, seed);
        let context = self.attend(implementation, &inputs);
        let gradients = (context.clone() * inputs.weight()).sum().backward();
        let host = |data: TensorData| data.convert::<f64>().try_to_vec::<f64>().expect("as converted");
        let mut found = vec![("context", host(context.into_data()))];
        for (name, states) in ["dQ", "dK", "dV"].into_iter().zip(&inputs.states) {
            found.push((name, host(states.grad(&gradients).expect("a gradient").into_data())));
        }
        let used = [self.terms.c2p, self.terms.p2c];
        for ((name, table), used) in ["dKr", "dQr"].into_iter().zip(&inputs.tables).zip(used) {
            if used {
                found.push((name, host(table.grad(&gradients).expect("a gradient").into_data())));
            }
        }
        found
    }

    /// The relative error of each of the results on a device: the norm of the difference over the norm of what is expected, or of
    /// as many numbers of 0.1 where that is larger (the gradients of a lone token's scores are zero). Padded rows of the
    /// definition's context are zero, as ours.
    pub fn errors(&self, device: &Device, dtype: DType, seed: u64) -> Vec<(&'static str, f64)> {
        let host = Device::flex().autodiff();
        // Masks are drawn by packed rows, which only the fused implementations count in.
        let expected = match self.dropout > 0.0 {
            true => self.results(Implementation::Fused, &host, DType::F32, seed),
            false => self.results(Implementation::Composed, &host, DType::F64, seed),
        };
        let found = self.results(Implementation::Fused, &device.clone().autodiff(), dtype, seed);
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        expected
            .iter()
            .zip(&found)
            .map(|((name, expected), (_, found))| {
                assert_eq!(expected.len(), found.len(), "{name}");
                let difference = norm(&mut expected.iter().zip(found).map(|(expected, found)| expected - found));
                let floor = 0.1 * (expected.len() as f64).sqrt();
                (*name, difference / norm(&mut expected.iter().copied()).max(floor))
            })
            .collect()
    }
}

/// Cases that reach every path: terms, lengths of 1 to beyond a tile, far tiles, masked positions, dropout, sizes of heads.
pub fn cases() -> Vec<Case> {
    let plain = |lengths: &[usize]| Case::new(lengths, 2, 64);
    let terms = |c2p, p2c| Case { terms: PositionTerms { c2p, p2c }, ..plain(&[70, 33]) };
    let clamped = RelativePositions { attention_span: 24, buckets: None, max_distance: 24 };
    vec![
        plain(&[1]),
        plain(&[64, 64]),
        plain(&[1, 65, 17, 128]),
        plain(&[200, 129]),
        plain(&[700]),
        terms(false, false),
        terms(true, false),
        terms(false, true),
        Case { rule: clamped, ..plain(&[300, 41]) },
        Case { dropout: 0.1, ..plain(&[150, 90]) },
        Case { queries: Some(vec![vec![0, 3, 99], vec![], vec![5, 6, 7, 64]]), ..plain(&[100, 40, 70]) },
        Case::new(&[90, 20], 3, 32),
        Case::new(&[90, 20], 2, 20),
        Case::new(&[80, 128], 1, 128),
    ]
}
