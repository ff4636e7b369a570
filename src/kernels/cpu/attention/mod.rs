//! Disentangled attention for the CPU: the arithmetic of `model::attention::composed` without its [batch, heads, length,
//! length] tensors.
//!
//! ```text
//! score[i, j] = ( Qc[i] . Kc[j]  +  Qc[i] . Kr[idx(i, j)]  +  Qr[idx(i, j)] . Kc[j] ) / sqrt(d n)
//! context     = dropout(softmax(score)) Vc
//! ```
//!
//! A task is a sequence, a head and a run of queries; tasks share nothing and run in parallel. It first makes the table
//! Qr Kc^T [rows, keys] of the rows that its queries reach, then goes through its queries in blocks: scores Qc Kc^T of the
//! block against all keys, and Qc Kr^T [block, rows], both small enough for the second-level cache. While the scores are
//! there, the position terms are added to them ([`positions`]). Along the keys of a query the row idx falls by one from key to key
//! near the diagonal and stays for several keys far from it (log buckets), so Qc Kr^T is laid out with its rows reversed, and a
//! register of keys finds its terms in a register of them; of the other table it takes diagonals. Softmax, dropout and the product
//! with Vc follow before the block is left. Memory grows with the length, not with its square.
//!
//! Sequences are runs of token rows in [tokens, hidden] matrices, so padding costs nothing, and heads are columns, so
//! nothing is ever permuted. The backward pass makes each block again and accumulates into the gradients; which task adds to
//! what, and in which order, depends on the number of threads alone.

mod backward;
mod block;
mod forward;
pub(crate) mod operation;
mod positions;

use crate::{
    isa::Isa,
    kernels::{
        QueryPositions, RelativeIndex, SequenceBounds,
        cpu::{dropout::DropoutMask, matrix::Matrix},
    },
};

pub(crate) use backward::backward;
pub(crate) use forward::forward;

/// What is known beside the numbers.
#[derive(Clone, Debug)]
pub(crate) struct Geometry<'a> {
    /// The instructions to use.
    pub isa: Isa,
    pub heads: usize,
    pub head_size: usize,
    /// 1 / sqrt(d n)
    pub scale: f32,
    /// The sequences; no two overlap.
    pub sequences: &'a [SequenceBounds],
    /// Their queries, if not every token has one.
    pub queries: Option<&'a QueryPositions>,
    /// The rows of each pair, for lengths of at least the longest sequence.
    pub index: Option<&'a RelativeIndex>,
    /// The row of the position tables that the index counts from.
    pub first_row: usize,
    pub dropout: Option<DropoutMask>,
}

impl<'a> Geometry<'a> {
    fn hidden(&self) -> usize {
        self.heads * self.head_size
    }

    /// The sequences that have keys and queries.
    fn sequences(&self) -> Vec<Sequence<'a>> {
        let sequences = self.sequences.iter().enumerate().map(|(number, keys)| match self.queries {
            Some(QueryPositions { bounds, positions }) => {
                let queries = bounds[number];
                let positions = &positions[queries.rows()];
                Sequence { keys: *keys, queries, positions: Some(positions) }
            }
            None => Sequence { keys: *keys, queries: *keys, positions: None },
        });
        sequences.filter(|sequence| sequence.keys.length > 0 && sequence.queries.length > 0).collect()
    }
}

/// A sequence: the rows of its keys and values, and those of its queries.
#[derive(Clone, Copy)]
struct Sequence<'a> {
    keys: SequenceBounds,
    queries: SequenceBounds,
    /// Where the queries are among the keys; each at its own place if none.
    positions: Option<&'a [u32]>,
}

impl Sequence<'_> {
    /// The position of a query.
    #[inline(always)]
    fn position(&self, query: usize) -> usize {
        self.positions.map_or(query, |positions| positions[query] as usize)
    }
}

/// The numbers: [tokens, hidden] each, and [rows, hidden] for the position terms in use, alike where there are both.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    pub query: &'a [f32],
    pub key: &'a [f32],
    pub value: &'a [f32],
    pub position_key: Option<&'a [f32]>,
    pub position_query: Option<&'a [f32]>,
}

/// One head of one sequence.
#[derive(Clone, Copy)]
struct Head<'a> {
    /// [queries, head_size].
    query: Matrix<'a>,
    /// [length, head_size] each.
    key: Matrix<'a>,
    value: Matrix<'a>,
    /// [rows, head_size] each.
    position_key: Option<Matrix<'a>>,
    position_query: Option<Matrix<'a>>,
}

impl<'a> Head<'a> {
    fn new(geometry: &Geometry<'_>, operands: Operands<'a>, sequence: Sequence<'_>, head: usize) -> Self {
        let content = |data| view(geometry, data, sequence.keys, head);
        let rows = geometry.index.map_or(0, |index| index.rows().len());
        let (size, hidden) = (geometry.head_size, geometry.hidden());
        let position = |data| Matrix::new(data, geometry.first_row * hidden + head * size, rows, size, hidden);
        Self {
            query: view(geometry, operands.query, sequence.queries, head),
            key: content(operands.key),
            value: content(operands.value),
            position_key: operands.position_key.map(position),
            position_query: operands.position_query.map(position),
        }
    }
}

/// The columns of one head in the rows of one sequence.
fn view<'a>(geometry: &Geometry<'_>, data: &'a [f32], rows: SequenceBounds, head: usize) -> Matrix<'a> {
    let size = geometry.head_size;
    Matrix::new(data, rows.start * geometry.hidden() + head * size, rows.length, size, geometry.hidden())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        isa::InstructionSet,
        kernels::cpu::floats::{AmxBf16, F32, PairedBf16, Rounded},
    };

    /// Runs attention of two sequences with every term: the operands and the gradient of the context are random.
    fn attention<T>(
        isa: Isa,
        head_size: usize,
        row: impl Fn(i64) -> usize,
        dropout: Option<DropoutMask>,
        run: impl FnOnce(&Geometry<'_>, Operands<'_>, &[f32]) -> T,
    ) -> T {
        let heads = 2;
        let sequences = [(0, 70), (70, 33)].map(|(start, length)| SequenceBounds { start, length });
        let index = RelativeIndex::new(row, 70, 70);
        let values = |seed: usize, rows: usize| -> Vec<f32> {
            (0..rows * heads * head_size).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
        };
        let [query, key, value, gradient] = [1, 2, 3, 4].map(|seed| values(seed, 103));
        let [position_key, position_query] = [5, 6].map(|seed| values(seed, index.rows().len()));
        let geometry = Geometry {
            isa,
            heads,
            head_size,
            scale: 0.2,
            sequences: &sequences,
            queries: None,
            index: Some(&index),
            first_row: 0,
            dropout,
        };
        let operands = Operands {
            query: &query,
            key: &key,
            value: &value,
            position_key: Some(&position_key),
            position_query: Some(&position_query),
        };
        run(&geometry, operands, &gradient)
    }

    fn clamped(distance: i64) -> usize {
        (distance.clamp(-16, 15) + 16) as usize
    }

    /// Context and gradients.
    fn passes<F: Rounded>(isa: Isa, head_size: usize, dropout: Option<DropoutMask>) -> Vec<Vec<f32>> {
        attention(isa, head_size, clamped, dropout, |geometry, operands, gradient| {
            let mut context = vec![f32::NAN; operands.query.len()];
            forward::<F>(geometry, operands, &mut context);
            let found = backward::<F>(geometry, operands, gradient);
            let tables = [found.position_key, found.position_query].map(|table| table.expect("asked for"));
            [context, found.query, found.key, found.value].into_iter().chain(tables).collect()
        })
    }

    #[test]
    fn every_instruction_set_has_the_portable_results() {
        let portable = Isa::available().next().expect("there always is one");
        for dropout in [None, Some(DropoutMask::new(0.1, 3))] {
            let expected = passes::<F32>(portable, 20, dropout);
            for isa in Isa::available() {
                for (which, (found, expected)) in passes::<F32>(isa, 20, dropout).iter().zip(&expected).enumerate() {
                    let largest = expected.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
                    for (found, expected) in found.iter().zip(expected) {
                        // Sums of up to 103 x 20 products in another order.
                        let close = (found - expected).abs() <= 1e-5 * largest;
                        assert!(close, "{isa}, output {which}: {found} instead of {expected}");
                    }
                }
            }
        }
    }

    /// Heads of an odd size and keys of an odd number end in half a pair.
    #[test]
    fn operands_in_bf16_have_the_results_of_f32_but_for_their_roundings() {
        let with_pairs = |isa: &Isa| isa.multiplies_bf16() || isa.set() == InstructionSet::Portable;
        Isa::available().filter(with_pairs).for_each(rounds_operands::<PairedBf16>);
        Isa::available().for_each(rounds_operands::<AmxBf16>);
    }

    fn rounds_operands<F: Rounded>(isa: Isa) {
        for head_size in [20, 17] {
            let (expected, found) = (passes::<F32>(isa, head_size, None), passes::<F>(isa, head_size, None));
            for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let mean = |of: &dyn Fn(f32, f32) -> f32| -> f32 {
                    found.iter().zip(expected).map(|(a, b)| of(*a, *b)).sum::<f32>() / found.len() as f32
                };
                let size = mean(&|_, expected| expected.abs());
                let error = mean(&|found, expected| (found - expected).abs()) / size;
                let one_sided = mean(&|found, expected| found - expected).abs() / size;
                // Roundings move each number by up to 2^-9 of itself, by half of that at a mean, and two or three of them meet in each
                // product; sums of many make it less. No rounding is to one side.
                let what = format!("{isa}, heads of {head_size}, output {which}");
                assert!(error < 4e-3, "{what}: off by {error} of its size");
                assert!(one_sided < 4e-4, "{what}: off to one side by {one_sided} of its size");
                let largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(largest < 0.04 * size, "{what}: off by up to {largest}, of numbers of size {size}");
                assert!(largest > 0.0, "{what}: nothing was rounded");
            }
        }
    }

    /// The context in f64, as the formula has it.
    fn by_definition(geometry: &Geometry<'_>, operands: Operands<'_>) -> Vec<f64> {
        let (size, hidden) = (geometry.head_size, geometry.hidden());
        let index = geometry.index.expect("position terms");
        let mut context = vec![0.0; operands.query.len()];
        for (sequence, head) in
            geometry.sequences.iter().flat_map(|sequence| (0..geometry.heads).map(move |head| (sequence, head)))
        {
            let vector = |data: &[f32], row: usize| {
                data[row * hidden + head * size..][..size].iter().map(|x| f64::from(*x)).collect::<Vec<_>>()
            };
            let dot = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let [position_key, position_query] =
                [operands.position_key, operands.position_query].map(|table| table.expect("a table"));
            for query in 0..sequence.length {
                let row = sequence.start + query;
                let exponentials = (0..sequence.length).map(|key| {
                    let (column, position) = (sequence.start + key, index.window(query)[key] as usize);
                    let score = dot(vector(operands.query, row), vector(operands.key, column))
                        + dot(vector(operands.query, row), vector(position_key, position))
                        + dot(vector(position_query, position), vector(operands.key, column));
                    (score * f64::from(geometry.scale)).exp()
                });
                let exponentials: Vec<f64> = exponentials.collect();
                let sum: f64 = exponentials.iter().sum();
                for (key, exponential) in exponentials.iter().enumerate() {
                    let value = vector(operands.value, sequence.start + key);
                    for (context, value) in context[row * hidden + head * size..].iter_mut().zip(value) {
                        *context += exponential / sum * value;
                    }
                }
            }
        }
        context
    }

    /// Rows that fall from key to key by one, by less, and by more than a register of terms has.
    #[test]
    fn position_terms_are_those_of_the_definition() {
        let rows: [fn(i64) -> usize; 4] = [
            |distance| (distance + 100) as usize,
            clamped,
            |distance| ((distance + 100) / 3) as usize,
            |distance| if distance < 5 { (distance + 100) as usize * 2 } else { 250 + distance as usize / 20 },
        ];
        for (isa, row) in Isa::available().flat_map(|isa| rows.map(|row| (isa, row))) {
            attention(isa, 20, row, None, |geometry, operands, _| {
                let mut context = vec![f32::NAN; operands.query.len()];
                forward::<F32>(geometry, operands, &mut context);
                for (found, expected) in context.iter().zip(by_definition(geometry, operands)) {
                    // As above, of values up to 1.
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{isa}: {found} instead of {expected}");
                }
            });
        }
    }
}
