//! From tensors and a plan to launches: which kernels, over which blocks.

use burn::{
    backend::{TensorMetadata, cubecl::dtype_to_elem_type},
    tensor::{DType, Shape},
};
use burn_cubecl::{
    ops::numeric::{empty_device_contiguous_dtype, zeros_client},
    tensor::CubeTensor,
};
use cubecl::{prelude::*, std::tensor::TensorHandle};

use super::{
    fragments::FRAGMENT,
    plan::Plan,
    portable,
    shared::{BLOCK, NumbersLaunch, Variant},
    tensor_core,
};
use crate::kernels::SequenceBounds;

/// The most cubes that every device takes along an axis.
pub(super) const MOST_CUBES: usize = 65_535;

/// The kernels that serve a type on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernels {
    /// Any type, one unit a row.
    Portable,
    /// bf16 and f16 where the device multiplies fragments of 16 x 8 x 16.
    TensorCore,
}

impl Kernels {
    fn of(tensor: &CubeTensor, head_size: usize) -> Self {
        let fits = head_size.is_multiple_of(FRAGMENT) && head_size <= 128;
        if fits && multiplies_fragments(tensor) { Self::TensorCore } else { Self::Portable }
    }

    /// Rows that a cube owns, rows of a tile, and units of a cube.
    pub fn sizes(self, backward: bool) -> (usize, usize, usize) {
        match (self, backward) {
            (Self::Portable, _) => (64, 16, 64),
            (Self::TensorCore, false) => (64, 64, 128),
            (Self::TensorCore, true) => (64, 32, 128),
        }
    }
}

/// Whether the device multiplies fragments of a tensor's type, see [`fragments`](super::fragments).
pub(super) fn multiplies_fragments(tensor: &CubeTensor) -> bool {
    let matmul = &tensor.client.properties().features.matmul;
    let element = dtype_to_elem_type(tensor.dtype);
    let sum = f32::elem_type_native();
    let multiplies = matmul.mma.iter().any(|config| {
        (config.a_type, config.b_type, config.cd_type) == (element, element, sum)
            && (config.m, config.n, config.k) == (16, 8, 16)
    });
    multiplies && matmul.ldmatrix.contains(&element)
}

/// Multiprocessors of a tensor's device.
pub(super) fn multiprocessors(tensor: &CubeTensor) -> usize {
    /// What a device has that does not say.
    const UNKNOWN: u32 = 64;
    tensor.client.properties().hardware.num_streaming_multiprocessors.unwrap_or(UNKNOWN) as usize
}

/// One launch's part of the work: the variant, the index that says which rows belong together, and the numbers.
struct Work {
    variant: Variant,
    units: u32,
    blocks: Vec<[u32; BLOCK]>,
    /// What follows the blocks in the index: rows by distance, then positions.
    tail: Vec<u32>,
    steps: bool,
    shape: [usize; 3],
}

impl Work {
    /// The blocks of queries, or of keys.
    fn new(plan: &Plan, kernels: Kernels, keys: bool, backward: bool, shape: [usize; 3], hidden: usize) -> Self {
        let attention = &plan.attention;
        let (own, tile, units) = kernels.sizes(backward);
        let queries = attention.queries.as_ref();
        let variant = Variant {
            head_size: hidden / attention.heads,
            own,
            tile,
            c2p: plan.terms.c2p,
            p2c: plan.terms.p2c,
            placed: queries.is_some(),
            dropout: attention.dropout.is_some(),
        };
        let bounds = attention.sequences.iter().enumerate().map(|(number, keys)| {
            let queries = queries.map_or(*keys, |queries| queries.bounds[number]);
            (queries, *keys)
        });
        let mut blocks = Vec::new();
        // Keys that no query sees are gone through as well: their gradients are zero.
        for (of_queries, of_keys) in bounds.filter(|(_, keys)| keys.length > 0) {
            let (owned, other): (SequenceBounds, SequenceBounds) =
                if keys { (of_keys, of_queries) } else { (of_queries, of_keys) };
            let end = owned.start + owned.length;
            blocks.extend((owned.start..end).step_by(own).map(|start| {
                let other = other.rows();
                [start, (start + own).min(end), other.start, other.end, of_keys.start].map(|number| number as u32)
            }));
        }
        // The row of each distance, from the largest to the smallest, the ends repeated, so that a step beyond can be read.
        let rows = attention.index.as_ref().map_or(&[][..], |index| index.descending());
        let rows: Vec<u32> = rows.iter().map(|row| row + attention.first_row as u32).collect();
        let steps = rows.windows(2).all(|pair| pair[0] - pair[1] <= 1);
        let ends = (rows.first().copied(), rows.last().copied());
        let positions = queries.map_or(&[][..], |queries| &queries.positions[..]);
        let tail = ends.0.into_iter().chain(rows.iter().copied()).chain(ends.1).chain(positions.iter().copied());
        Self { variant, units: units as u32, blocks, tail: tail.collect(), steps, shape }
    }

    /// Calls `launch` with cubes, index and numbers, for as many blocks at a time as a launch takes.
    fn run(
        &self,
        plan: &Plan,
        like: &CubeTensor,
        mut launch: impl FnMut(CubeCount, CubeDim, TensorArg, NumbersLaunch),
    ) {
        let attention = &plan.attention;
        let [query_tokens, key_tokens, rows] = self.shape;
        let positions = attention.queries.as_ref().map_or(0, |queries| queries.positions.len());
        for blocks in self.blocks.chunks(MOST_CUBES) {
            let index: Vec<u32> = blocks.iter().flatten().chain(&self.tail).copied().collect();
            let handle = like.client.create_from_slice(bytemuck::cast_slice(&index));
            let buffer = TensorHandle::new_contiguous(vec![index.len()], handle, u32::elem_type_native());
            let zero = attention.index.as_ref().map_or(0, |index| index.query_length());
            let dropout = attention.dropout;
            let numbers = NumbersLaunch::new(
                attention.heads as u32,
                query_tokens as u32,
                key_tokens as u32,
                rows as u32,
                (blocks.len() * BLOCK + zero) as u32,
                (index.len() - positions) as u32,
                u32::from(self.steps),
                attention.scale as f32,
                dropout.map_or(0, |mask| mask.seed),
                dropout.map_or(0, |mask| mask.first_part as u32),
                dropout.map_or(0, |mask| mask.threshold()),
                dropout.map_or(1.0, |mask| mask.factor() as f32),
            );
            let cubes = CubeCount::Static(blocks.len() as u32, attention.heads as u32, 1);
            launch(cubes, CubeDim::new_1d(self.units), buffer.into_arg(), numbers);
        }
    }
}

/// The tensors of one pass: query, key and value, and the scores of all rows of the position tables.
pub(super) struct Operands {
    pub query: CubeTensor,
    pub key: CubeTensor,
    pub value: CubeTensor,
    pub c2p: CubeTensor,
    pub p2c: CubeTensor,
}

impl Operands {
    /// Tokens of the query, tokens of the key, rows of the position tables.
    fn shape(&self, plan: &Plan) -> [usize; 3] {
        let hidden = hidden(&self.query);
        let rows = |scores: &CubeTensor| scores.shape()[2];
        let rows = match (plan.terms.c2p, plan.terms.p2c) {
            (true, _) => rows(&self.c2p),
            (_, true) => rows(&self.p2c),
            _ => 0,
        };
        let tokens = |states: &CubeTensor| states.shape().num_elements() / hidden;
        [tokens(&self.query), tokens(&self.key), rows]
    }
}

/// The number of rows of a tensor [.., width].
pub(super) fn rows(shape: &Shape) -> usize {
    shape.num_elements() / shape[shape.num_dims() - 1]
}

fn hidden(states: &CubeTensor) -> usize {
    let shape = states.shape();
    shape[shape.num_dims() - 1]
}

/// A tensor on the device of another, its rows end to end: the runtime's own layout may put gaps between them.
pub(super) fn like(tensor: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), shape, dtype)
}

/// Context and logarithms of the softmax's sums.
pub(super) fn forward(operands: Operands, plan: &Plan) -> (CubeTensor, CubeTensor) {
    let (shape, hidden) = (operands.shape(plan), hidden(&operands.query));
    let Operands { query, key, value, c2p, p2c } = operands;
    let context = like(&query, query.shape(), query.dtype);
    let lse = like(&query, Shape::new([shape[0], plan.attention.heads]), DType::F32);
    let kernels = Kernels::of(&query, hidden / plan.attention.heads);
    let work = Work::new(plan, kernels, false, false, shape, hidden);
    let (client, dtype) = (query.client.clone(), dtype_to_elem_type(query.dtype));
    work.run(plan, &query, |cubes, units, index, numbers| {
        macro_rules! launch {
            ($kernels:ident) => {
                $kernels::forward::launch(
                    &client,
                    cubes,
                    units,
                    query.clone().into_tensor_arg(),
                    key.clone().into_tensor_arg(),
                    value.clone().into_tensor_arg(),
                    c2p.clone().into_tensor_arg(),
                    p2c.clone().into_tensor_arg(),
                    index,
                    context.clone().into_tensor_arg(),
                    lse.clone().into_tensor_arg(),
                    numbers,
                    work.variant,
                    dtype,
                )
            };
        }
        match kernels {
            Kernels::Portable => launch!(portable),
            Kernels::TensorCore => launch!(tensor_core),
        }
    });
    (context, lse)
}

/// Gradients of query, key, value, c2p and p2c; where a term is not in use, a tensor of one element.
pub(super) fn backward(
    operands: Operands,
    gradient: CubeTensor,
    lse: CubeTensor,
    delta: CubeTensor,
    plan: &Plan,
) -> [CubeTensor; 5] {
    let (shape, hidden) = (operands.shape(plan), hidden(&operands.query));
    let Operands { query, key, value, c2p, p2c } = operands;
    let [d_query, d_key, d_value] = [&query, &key, &value].map(|states| like(states, states.shape(), states.dtype));
    let zeros = |scores: &CubeTensor, in_use: bool| {
        let shape = if in_use { scores.shape() } else { Shape::new([1]) };
        let (client, device) = (scores.client.clone(), scores.device.clone());
        let row = zeros_client(client.clone(), device.clone(), Shape::new([shape.num_elements()]), scores.dtype);
        CubeTensor::new_contiguous(client, device, shape, row.handle, scores.dtype)
    };
    let (d_c2p, d_p2c) = (zeros(&c2p, plan.terms.c2p), zeros(&p2c, plan.terms.p2c));
    let kernels = Kernels::of(&query, hidden / plan.attention.heads);
    let (client, dtype) = (query.client.clone(), dtype_to_elem_type(query.dtype));
    let sides = [
        (false, [&query, &gradient, &key, &value, &c2p, &p2c], [&d_query, &d_value, &d_c2p]),
        (true, [&key, &value, &query, &gradient, &p2c, &c2p], [&d_key, &d_value, &d_p2c]),
    ];
    for (keys, [own, own_value, other, other_value, own_term, other_term], [d_own, d_own_value, d_term]) in sides {
        let work = Work::new(plan, kernels, keys, true, shape, hidden);
        work.run(plan, &query, |cubes, units, index, numbers| {
            macro_rules! launch {
                ($kernels:ident) => {
                    $kernels::backward::launch(
                        &client,
                        cubes,
                        units,
                        own.clone().into_tensor_arg(),
                        own_value.clone().into_tensor_arg(),
                        other.clone().into_tensor_arg(),
                        other_value.clone().into_tensor_arg(),
                        own_term.clone().into_tensor_arg(),
                        other_term.clone().into_tensor_arg(),
                        index,
                        lse.clone().into_tensor_arg(),
                        delta.clone().into_tensor_arg(),
                        d_own.clone().into_tensor_arg(),
                        d_own_value.clone().into_tensor_arg(),
                        d_term.clone().into_tensor_arg(),
                        numbers,
                        keys,
                        work.variant,
                        dtype,
                    )
                };
            }
            match kernels {
                Kernels::Portable => launch!(portable),
                Kernels::TensorCore => launch!(tensor_core),
            }
        });
    }
    [d_query, d_key, d_value, d_c2p, d_p2c]
}
