//! The matrix unit of Intel's processors, AMX: eight registers that are matrices themselves, tiles of 16 rows of 64 bytes.
//!
//! One instruction multiplies a tile of states, up to 16 rows of 16 groups, by a tile of weights, 16 groups of 16 columns, and
//! adds the products to a tile of sums, in 16 cycles:
//!
//! ```text
//! sums [rows, 16] += states [rows, 16 groups] weights [16 groups, 16]
//! ```
//!
//! A group is four bytes or two bf16, side by side in memory, as in [panels](super::panels): the tiles of a panel can be loaded as
//! they lie. (Intel, "Intel 64 and IA-32 architectures software developer's manual", volume 1, chapter 18.)

/// Bytes in a row of a tile.
pub(super) const ROW: usize = 64;

/// Rows of a tile.
const ROWS: usize = 16;

/// Rows, and columns, of the sums that are made at a time: two tiles each way, so that each tile that is loaded is used twice.
pub(super) const SIDE: usize = 2 * ROWS;

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    /// Bytes without a sign by bytes with one; sums are i32, modulo 2^32.
    Bytes,
    /// bf16; sums are f32. Denormal numbers count as zeros.
    Bf16,
}

/// Rows of 32 bits, to read or to write: a pointer, and the bytes from one row to the next.
#[derive(Clone, Copy)]
pub(super) struct Rows<P> {
    pub pointer: P,
    pub stride: isize,
}

/// The product of up to [`SIDE`] rows of states with a panel, two tiles wide.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Of states, from 1 to [`SIDE`].
    pub rows: usize,
    /// Tiles of states one after the other, each [`ROW`] bytes of every row.
    pub steps: usize,
    pub states: Rows<*const u8>,
    /// The panel: [`ROW`] bytes for each of two tiles, row after row.
    pub weights: *const u8,
    /// What the sums start from.
    pub start: Rows<*const u8>,
    /// Where the sums go.
    pub sums: Rows<*mut u8>,
    /// Weights that will be needed soon; any address is allowed.
    pub ahead: *const u8,
}

/// The unit of this thread, in use until it is dropped.
pub(super) struct Unit {
    /// Rows that its tiles are set up for, if for any.
    rows: usize,
}

impl Unit {
    pub fn new() -> Self {
        Self { rows: 0 }
    }

    /// `sums = start + states weights`
    ///
    /// # Safety
    /// The [processor multiplies tiles](crate::isa::Isa::multiplies_tiles). Of the states, `steps` times [`ROW`] bytes can be read from
    /// each row, of the weights as many times 16 rows of two tiles, and of the start and the sums two tiles' width from and to each row.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub unsafe fn multiply(&mut self, product: Product, block: &Block) {
        if self.rows != block.rows {
            // SAFETY: the processor has the instruction.
            unsafe { x86_64::set_up(block.rows) };
            self.rows = block.rows;
        }
        // SAFETY: the tiles are set up for so many rows; the rest is the caller's promise.
        unsafe {
            match product {
                Product::Bytes => x86_64::multiply_bytes(block),
                Product::Bf16 => x86_64::multiply_bf16(block),
            }
        }
    }

    /// As above.
    ///
    /// # Safety
    /// As above.
    #[cfg(not(target_arch = "x86_64"))]
    pub unsafe fn multiply(&mut self, _: Product, _: &Block) {
        unreachable!("no other processor multiplies tiles")
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.rows > 0 {
            // SAFETY: whoever set up tiles had a processor with the instruction.
            unsafe { x86_64::release() };
        }
    }
}

/// The instructions. Tiles 0 to 3 hold sums, two for each tile of rows; 4 and 5 states, 6 and 7 weights.
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;

    use super::{Block, ROW, ROWS};

    /// The shapes of the tiles.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// # Safety
    /// The processor has the instruction.
    pub unsafe fn set_up(rows: usize) {
        let [first, second] = [rows.min(ROWS), rows.saturating_sub(ROWS)];
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for (tile, rows) in [first, first, second, second, first, second, ROWS, ROWS].into_iter().enumerate() {
            // A tile without rows has no width either.
            shapes.bytes[tile] = if rows > 0 { ROW as u16 } else { 0 };
            shapes.rows[tile] = rows as u8;
        }
        // SAFETY: the caller's promise; the instruction reads 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly, preserves_flags)) };
    }

    /// Leaves the tiles empty, so that nothing of them has to be saved when the thread is interrupted.
    ///
    /// # Safety
    /// The processor has the instruction.
    pub unsafe fn release() {
        // SAFETY: the caller's promise.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }

    /// Defines the function that multiplies blocks by an instruction.
    macro_rules! multiply {
        ($name:ident, $instruction:literal) => {
            /// # Safety
            /// As for [`Unit::multiply`](super::Unit::multiply), with tiles that are set up for the block's rows.
            #[inline]
            pub unsafe fn $name(block: &Block) {
                let Block { rows, steps, states, weights, start, sums, ahead } = *block;
                // The second tile of rows, if there is one.
                let below = if rows > ROWS {
                    states.pointer.wrapping_offset(ROWS as isize * states.stride)
                } else {
                    std::ptr::null()
                };
                // SAFETY: the caller's promise. Nothing else uses tiles between these instructions, nor expects them to stay.
                unsafe {
                    asm!(
                        "tileloadd tmm0, [{start} + {start_stride}]",
                        "tileloadd tmm1, [{start} + {start_stride} + 64]",
                        "test {below}, {below}",
                        "jz 2f",
                        "mov {other}, {start_stride}",
                        "shl {other}, 4",
                        "add {start}, {other}",
                        "tileloadd tmm2, [{start} + {start_stride}]",
                        "tileloadd tmm3, [{start} + {start_stride} + 64]",
                        "2:",
                        "tileloadd tmm6, [{weights} + {width}]",
                        "tileloadd tmm4, [{states} + {stride}]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{weights} + {width} + 64]",
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        "test {below}, {below}",
                        "jz 3f",
                        "tileloadd tmm5, [{below} + {stride}]",
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        "add {below}, 64",
                        "3:",
                        // A fourth of the weights that a step takes: each of a task's four blocks of rows asks for its share.
                        "prefetcht1 [{ahead}]",
                        "prefetcht1 [{ahead} + 64]",
                        "prefetcht1 [{ahead} + 128]",
                        "prefetcht1 [{ahead} + 192]",
                        "prefetcht1 [{ahead} + 256]",
                        "prefetcht1 [{ahead} + 320]",
                        "prefetcht1 [{ahead} + 384]",
                        "prefetcht1 [{ahead} + 448]",
                        "add {ahead}, 512",
                        "add {states}, 64",
                        "add {weights}, 2048",
                        "dec {steps}",
                        "jnz 2b",
                        "tilestored [{sums} + {sums_stride}], tmm0",
                        "tilestored [{sums} + {sums_stride} + 64], tmm1",
                        "test {below}, {below}",
                        "jz 4f",
                        "mov {other}, {sums_stride}",
                        "shl {other}, 4",
                        "add {sums}, {other}",
                        "tilestored [{sums} + {sums_stride}], tmm2",
                        "tilestored [{sums} + {sums_stride} + 64], tmm3",
                        "4:",
                        start = inout(reg) start.pointer => _,
                        start_stride = in(reg) start.stride,
                        states = inout(reg) states.pointer => _,
                        below = inout(reg) below => _,
                        stride = in(reg) states.stride,
                        weights = inout(reg) weights => _,
                        width = in(reg) 2 * ROW,
                        steps = inout(reg) steps => _,
                        ahead = inout(reg) ahead => _,
                        sums = inout(reg) sums.pointer => _,
                        sums_stride = in(reg) sums.stride,
                        other = out(reg) _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                }
            }
        };
    }

    multiply!(multiply_bytes, "tdpbusd");
    multiply!(multiply_bf16, "tdpbf16ps");
}

/// The same in plain code, for tests of what surrounds the unit: columns of a tile are as many as a register of the set has lanes.
///
/// # Safety
/// As for [`Unit::multiply`], but for the processor, with tiles of `lanes` columns.
#[cfg(test)]
pub(super) unsafe fn multiply_portably(product: Product, block: &Block, lanes: usize) {
    use half::bf16;

    let Block { rows, steps, states, weights, start, sums, .. } = *block;
    let groups = steps * ROW / 4;
    for (row, column) in (0..rows).flat_map(|row| (0..2 * lanes).map(move |column| (row, column))) {
        // SAFETY: the caller's promise; a group, and a sum, has four bytes.
        unsafe {
            let group = |group: usize| {
                let state = states.pointer.offset(row as isize * states.stride).add(4 * group);
                let weight = weights.add(4 * (group * 2 * lanes + column));
                (state.cast::<[u8; 4]>().read_unaligned(), weight.cast::<[u8; 4]>().read_unaligned())
            };
            let start = start.pointer.offset(row as isize * start.stride).add(4 * column);
            let sum = sums.pointer.offset(row as isize * sums.stride).add(4 * column);
            match product {
                Product::Bytes => {
                    let products = (0..groups).map(group).map(|(state, weight)| -> i32 {
                        state.into_iter().zip(weight).map(|(a, b)| i32::from(a) * i32::from(b as i8)).sum()
                    });
                    let start = start.cast::<i32>().read_unaligned();
                    sum.cast::<i32>().write_unaligned(products.fold(start, i32::wrapping_add));
                }
                Product::Bf16 => {
                    let products = (0..groups).map(group).map(|(state, weight)| -> f32 {
                        let [state, weight]: [[bf16; 2]; 2] = [bytemuck::cast(state), bytemuck::cast(weight)];
                        state.into_iter().zip(weight).map(|(a, b)| a.to_f32() * b.to_f32()).sum()
                    });
                    let start = start.cast::<f32>().read_unaligned();
                    sum.cast::<f32>().write_unaligned(start + products.sum::<f32>());
                }
            }
        }
    }
}
