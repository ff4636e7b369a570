//! One layer's attention of v3-base, between its projections: the composed definition against what [`attend`](op::attend)
//! chooses for the device, forward, and forward with backward.
//!
//! ```sh
//! cargo bench --bench attention -- forward/8x128
//! ```

mod common;

use std::hint::black_box;

use burn::{
    Tensor,
    tensor::{Device, Distribution},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deberta_burn::{
    config::Preset,
    model::{
        attention::{
            PositionProjections, composed, fused,
            operands::{AttentionOperands, PositionIndex, RelativeOperands},
            relative_position::RelativePositions,
        },
        dropout::Dropout,
        token_layout::TokenLayout,
    },
};

type Attend = fn(AttentionOperands<'_>) -> Tensor<3>;

const IMPLEMENTATIONS: [(&str, Attend); 2] = [
    ("composed", |operands| composed::attend(operands, None).0),
    ("fused", |operands| fused::attend(operands, None, false).0),
];

/// Numbers of one size, and the index that belongs to them.
struct Case {
    states: [Tensor<3>; 3],
    tables: [Tensor<2>; 2],
    index: PositionIndex,
    heads: usize,
    layout: TokenLayout,
    dropout: Dropout,
}

impl Case {
    fn new(batch: usize, length: usize, dropout: f64, device: &Device) -> Self {
        let config = common::config(Preset::DebertaV3Base);
        let index = RelativePositions::new(&config).index(length, length);
        let width = config.hidden_size;
        let states = [(); 3].map(|()| random([batch, length, width], device));
        let tables = [(); 2].map(|()| random([index.rows().len(), width], device));
        Self {
            states,
            tables,
            index: PositionIndex::new(index, device),
            heads: config.num_attention_heads,
            layout: TokenLayout::Padded(None),
            dropout: Dropout::new(dropout),
        }
    }

    fn operands(&self) -> AttentionOperands<'_> {
        let [query, key, value] = self.states.clone();
        let [position_key, position_query] = self.tables.clone();
        let head_size = query.dims()[2] / self.heads;
        AttentionOperands {
            query,
            key,
            value,
            heads: self.heads,
            relative: Some(RelativeOperands {
                positions: PositionProjections { key: Some(position_key), query: Some(position_query), first_row: 0 },
                index: self.index.clone(),
            }),
            query_positions: None,
            layout: &self.layout,
            scale: 1.0 / ((head_size * 3) as f64).sqrt(),
            dropout: &self.dropout,
            rounds: false,
        }
    }
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let tensor = Tensor::random(shape, Distribution::Normal(0.0, 1.0), device);
    if device.is_autodiff() { tensor.require_grad() } else { tensor }
}

fn compare(criterion: &mut Criterion, name: &str, dropout: f64, device: &Device, run: impl Fn(Tensor<3>)) {
    for (batch, length) in [(1, 32), (8, 32), (1, 128), (8, 128), (1, 512), (8, 512)] {
        let mut group = criterion.benchmark_group(format!("attention/{name}/{batch}x{length}"));
        group.sample_size(10).throughput(Throughput::Elements((batch * length) as u64));
        let case = Case::new(batch, length, dropout, device);
        for (implementation, attend) in IMPLEMENTATIONS {
            group.bench_function(BenchmarkId::from_parameter(implementation), |bencher| {
                bencher.iter(|| run(attend(case.operands())));
            });
        }
    }
}

fn forward(criterion: &mut Criterion) {
    compare(criterion, "forward", 0.0, &Device::flex(), |context| {
        black_box(context.into_data());
    });
}

fn backward(criterion: &mut Criterion) {
    compare(criterion, "backward", 0.1, &Device::flex().autodiff(), |context| {
        black_box(context.sum().backward());
    });
}

criterion_group!(benches, forward, backward);
criterion_main!(benches);
