//! Products by cubek's kernels: which of them multiplies, and its launch.

use std::{env, sync::OnceLock};

use burn::{backend::cubecl::dtype_to_elem_type, tensor::DType};
use burn_cubecl::tensor::CubeTensor;
use cubecl::zspace::metadata::Metadata;
use cubek::{
    matmul::{
        definition::{MatmulElems, MatmulGlobalElems},
        launch::launch_ref,
        multi_level::{
            Strategy,
            components::tile::TileMatmulKind,
            routines::{
                TileSizeSelection,
                batch::{
                    double_buffering::DoubleBufferingArgs, double_unit::DoubleUnitSelectionArgs,
                    ordered_double_buffering::OrderedSelectionArgs, simple::SimpleArgs,
                    simple_unit::SimpleUnitSelectionArgs,
                },
                gemm::GemmStrategy,
            },
        },
        routine::BlueprintStrategy::Inferred,
    },
    std::InputBinding,
};

use super::launch::multiprocessors;

/// The environment variable that sets the kernels, by their names in [`KERNELS`], with commas between them: for products on
/// tensor cores, for those with a short inner side, and for products in f32. For measurements. Where it is set, all products are
/// cubek's.
const CHOICE: &str = "DEBERTA_BURN_PRODUCT";

/// What is used without it.
const DEFAULT: [&str; 3] = ["ordered-mma-8", "simple-mma-rows", "unit-simple-max"];

/// Columns of lhs up to which a product is bound by what it writes.
const SHORT: usize = 128;

/// A strategy, made anew for each launch.
type Make = fn() -> Strategy;

const fn simple(tile_matmul: TileMatmulKind, multi_rows: bool) -> SimpleArgs {
    SimpleArgs { tile_matmul, multi_rows }
}

const fn ordered(tile_matmul: TileMatmulKind, row_count: u32) -> OrderedSelectionArgs {
    OrderedSelectionArgs { tile_matmul, partition_k: Some(2), row_count: Some(row_count), rows_per_plane: Some(2) }
}

const fn double(tile_matmul: TileMatmulKind, specialized: bool) -> DoubleBufferingArgs {
    DoubleBufferingArgs { tile_matmul, specialized }
}

const fn double_unit(tile_size: TileSizeSelection) -> DoubleUnitSelectionArgs {
    DoubleUnitSelectionArgs { tile_size }
}

const fn simple_unit(tile_size: TileSizeSelection) -> SimpleUnitSelectionArgs {
    SimpleUnitSelectionArgs { tile_size }
}

/// The kernels by name: those that multiply fragments, and those in which each unit multiplies numbers.
const KERNELS: [(&str, Make); 16] = [
    ("simple-cmma", || Strategy::SimpleCyclicCmma(Inferred(simple(TileMatmulKind::Cmma, false)))),
    ("simple-cmma-rows", || Strategy::SimpleCyclicCmma(Inferred(simple(TileMatmulKind::Cmma, true)))),
    ("simple-mma", || Strategy::SimpleCyclicMma(Inferred(simple(TileMatmulKind::Mma, false)))),
    ("simple-mma-rows", || Strategy::SimpleCyclicMma(Inferred(simple(TileMatmulKind::Mma, true)))),
    ("double-cmma", || Strategy::DoubleCyclicCmma(Inferred(double(TileMatmulKind::Cmma, false)))),
    ("double-mma", || Strategy::DoubleCyclicMma(Inferred(double(TileMatmulKind::Mma, false)))),
    ("double-mma-roles", || Strategy::DoubleCyclicMma(Inferred(double(TileMatmulKind::Mma, true)))),
    ("ordered-cmma-8", || Strategy::OrderedDoubleCmma(Inferred(ordered(TileMatmulKind::Cmma, 8)))),
    ("ordered-mma-4", || Strategy::OrderedDoubleMma(Inferred(ordered(TileMatmulKind::Mma, 4)))),
    ("ordered-mma-8", || Strategy::OrderedDoubleMma(Inferred(ordered(TileMatmulKind::Mma, 8)))),
    ("unit-double-max", || Strategy::DoubleUnit(Inferred(double_unit(TileSizeSelection::MaxTileSize)))),
    ("unit-double-min", || Strategy::DoubleUnit(Inferred(double_unit(TileSizeSelection::MinTileSize)))),
    ("unit-simple-max", || Strategy::SimpleUnit(Inferred(simple_unit(TileSizeSelection::MaxTileSize)))),
    ("unit-simple-min", || Strategy::SimpleUnit(Inferred(simple_unit(TileSizeSelection::MinTileSize)))),
    ("unit-unstaged", || Strategy::Gemm(Inferred(GemmStrategy { target_num_planes: None }))),
    ("naive", || Strategy::Naive),
];

/// The strategies for products [rows, inner] [inner, columns], in the order in which they are tried. A device may refuse any
/// but the last.
fn strategies(dtype: DType, inner: usize) -> impl Iterator<Item = Strategy> {
    let [long, short, exact] = chosen();
    let first = match dtype {
        DType::F32 => None,
        _ if inner <= SHORT => Some(short),
        _ => Some(long),
    };
    let names = first.into_iter().chain([exact, "unit-simple-min", "naive"]);
    names.filter_map(|name| KERNELS.iter().find(|(known, _)| *known == name)).map(|(_, make)| make())
}

/// Whether cubek's kernels were asked for where there are own ones.
pub(super) fn is_chosen() -> bool {
    static CHOSEN: OnceLock<bool> = OnceLock::new();
    *CHOSEN.get_or_init(|| env::var_os(CHOICE).is_some_and(|choice| !choice.is_empty()))
}

/// The kernels in use, in the order of [`DEFAULT`]. Names that are not known are logged, and the default stays.
fn chosen() -> [&'static str; 3] {
    static CHOSEN: OnceLock<[&str; 3]> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let (mut names, choice) = (DEFAULT, env::var(CHOICE).unwrap_or_default());
        for (slot, name) in names.iter_mut().zip(choice.split(',')).filter(|(_, name)| !name.is_empty()) {
            match KERNELS.iter().find(|(known, _)| *known == name) {
                Some((known, _)) => *slot = known,
                None => {
                    let known = KERNELS.map(|(name, _)| name).join(", ");
                    tracing::error!("{CHOICE}: {name:?} is unknown, {slot} stays; expected some of {known}");
                }
            }
        }
        names
    })
}

/// The matrices of a tensor, each `parts` times, `step` numbers from one another.
fn in_parts(mut tensor: CubeTensor, lengths: [usize; 3], strides: [usize; 3], parts: usize, step: usize) -> CubeTensor {
    let [matrices, rows, columns] = lengths;
    let [of_matrix, of_row, of_column] = strides;
    *tensor.meta = match parts {
        1 => Metadata::new(lengths, strides),
        _ => Metadata::new([parts, matrices, rows, columns], [step, of_matrix, of_row, of_column]),
    };
    tensor
}

/// In how many parts of one length the sums of a product are made by cubek's kernels, for the reason that
/// [`TensorCoreProduct::parts`](super::tensor_core_product::TensorCoreProduct::parts) gives.
pub(super) fn parts(lhs: &CubeTensor, rhs: &CubeTensor) -> usize {
    /// Rows and columns that a cube makes, about.
    const TILE: usize = 128;
    /// Sums shorter than this are not worth a pass over their parts.
    const SHORTEST: usize = 512;
    let [matrices, rows, inner] = lhs.meta.shape().dims();
    let tiles = matrices * rows.div_ceil(TILE) * rhs.meta.shape()[2].div_ceil(TILE);
    let wanted = (2 * multiprocessors(lhs)).div_ceil(tiles).min(inner / SHORTEST);
    (1..=wanted).rev().find(|parts| inner % parts == 0).unwrap_or(1)
}

/// Launches the first kernel that the device takes, for factors [matrices, rows, inner] and [matrices, inner, columns], and an output
/// whose matrices have these lengths and strides. There are so many parts of it, each the sums of a part of the inner side.
pub(super) fn launch(
    [lhs, rhs]: [CubeTensor; 2],
    output: CubeTensor,
    [lengths, strides]: [[usize; 3]; 2],
    parts: usize,
) {
    let inner = lhs.meta.shape()[2];
    let output = in_parts(output, lengths, strides, parts, lengths.iter().product());
    let [lhs, rhs] = [(lhs, 2), (rhs, 1)].map(|(factor, axis)| {
        let (mut lengths, strides) = (factor.meta.shape().dims::<3>(), factor.meta.strides());
        let strides = [strides[0], strides[1], strides[2]];
        lengths[axis] /= parts;
        in_parts(factor, lengths, strides, parts, lengths[axis] * strides[axis])
    });
    let (client, dtype) = (lhs.client.clone(), lhs.dtype);
    let [element, sums] = [dtype, output.dtype].map(dtype_to_elem_type);
    let mut problems = Vec::new();
    for strategy in strategies(dtype, inner) {
        let [lhs, rhs] = [&lhs, &rhs].map(|tensor| InputBinding::new(tensor.clone().binding(), element));
        let elements = MatmulGlobalElems { lhs: element, rhs: element, out: sums };
        let mut elements = MatmulElems::from_globals(&elements);
        match launch_ref(&strategy.clone().into(), &client, lhs, rhs, output.clone().binding(), &mut elements) {
            Ok(()) => return,
            Err(problem) => problems.push(format!("{strategy}: {problem:?}")),
        }
    }
    // The last strategy has no demands.
    unreachable!("no product in {dtype:?}: {problems:?}")
}
