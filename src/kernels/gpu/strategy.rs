//! Which of cubek's kernels multiplies.

use std::{env, sync::OnceLock};

use burn::tensor::DType;
use cubek::matmul::{
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
};

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
pub(super) fn strategies(dtype: DType, inner: usize) -> impl Iterator<Item = Strategy> {
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
pub(super) fn cubek_is_chosen() -> bool {
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
