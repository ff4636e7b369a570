//! Vector arithmetic behind one trait, so that a kernel is written once, and functions compiled once for each instruction set.

mod portable;
mod sets;

use half::bf16;

pub(crate) use portable::Portable;
#[cfg(target_arch = "aarch64")]
pub(crate) use sets::Neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use sets::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};

/// Lanes of the widest registers.
pub(crate) const MOST_LANES: usize = 16;

/// Vectors in the registers of one instruction set. Its values are tokens: whoever has one runs in a function that
/// [`vectorized!`] compiled for the set, and on a processor that has it.
pub(crate) trait Simd: Copy {
    /// A register of f32.
    type Vector: Copy;

    /// A register of as many i32, or of two i16 or four bytes in the place of each.
    type Integers: Copy;

    /// Numbers in a register.
    const LANES: usize;

    /// Rows of a product's tile, which is two registers wide: as many as leave registers for two vectors of weights, one
    /// state, and what the multiplications of processors without a combined instruction need.
    const TILE_ROWS: usize;

    /// Whether a product and a sum are one instruction.
    const FUSES: bool;

    /// a b + c of single numbers, for loops that compilers vectorise; rounded once or twice as the processor has it.
    #[inline(always)]
    fn fused(self, a: f32, b: f32, c: f32) -> f32 {
        // Where there is no such instruction `f32::mul_add` is a call.
        if Self::FUSES { a.mul_add(b, c) } else { a * b + c }
    }

    /// The same number in every lane.
    fn splat(self, value: f32) -> Self::Vector;

    /// # Safety
    /// [`LANES`](Self::LANES) numbers can be read.
    unsafe fn load(self, from: *const f32) -> Self::Vector;

    /// # Safety
    /// [`LANES`](Self::LANES) numbers can be read.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::Vector;

    /// # Safety
    /// [`LANES`](Self::LANES) numbers can be written.
    unsafe fn store(self, to: *mut f32, vector: Self::Vector);

    /// Rounds a register to the nearest bf16. In use are the sets that have an instruction for it, and the others in tests.
    ///
    /// # Safety
    /// [`LANES`](Self::LANES) numbers can be written.
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, vector: Self::Vector) {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: there is room for the widest registers, and the caller's promise.
        unsafe {
            self.store(values.as_mut_ptr(), vector);
            for (lane, value) in values[..Self::LANES].iter().enumerate() {
                to.add(lane).write(bf16::from_f32(*value));
            }
        }
    }

    /// The same of two registers, of which each lane's numbers come to lie side by side.
    ///
    /// # Safety
    /// Twice [`LANES`](Self::LANES) numbers can be written.
    #[inline(always)]
    unsafe fn store_pairs_of_bf16(self, to: *mut bf16, low: Self::Vector, high: Self::Vector) {
        let (mut lows, mut highs) = ([0.0; MOST_LANES], [0.0; MOST_LANES]);
        // SAFETY: as above.
        unsafe {
            self.store(lows.as_mut_ptr(), low);
            self.store(highs.as_mut_ptr(), high);
            for (lane, (low, high)) in lows[..Self::LANES].iter().zip(&highs).enumerate() {
                let pair = [bf16::from_f32(*low), bf16::from_f32(*high)];
                to.add(2 * lane).cast::<[bf16; 2]>().write_unaligned(pair);
            }
        }
    }

    /// a + b
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// a b
    fn multiply(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// a b + c, rounded once or twice as the processor has it.
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// The same 32 bits in every lane.
    fn splat_integers(self, value: i32) -> Self::Integers;

    /// # Safety
    /// [`LANES`](Self::LANES) times 32 bits can be read.
    unsafe fn load_integers(self, from: *const i32) -> Self::Integers;

    /// Bytes with a sign as i16.
    ///
    /// # Safety
    /// [`LANES`](Self::LANES) times two bytes can be read.
    unsafe fn load_bytes(self, from: *const i8) -> Self::Integers;

    /// a - b, modulo 2^32.
    fn difference(self, a: Self::Integers, b: Self::Integers) -> Self::Integers;

    /// In each lane the number of the lane that its index names, which has to be one of a register's.
    fn pick(self, from: Self::Vector, indices: Self::Integers) -> Self::Vector;

    /// The lanes of a where `lanes` has all bits, those of b where it has none.
    fn select(self, lanes: Self::Integers, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// i32 as f32.
    fn to_floats(self, integers: Self::Integers) -> Self::Vector;

    /// In each lane the scalar product of two i16 and two i16, plus an i32, modulo 2^32.
    fn pairs(self, a: Self::Integers, b: Self::Integers, c: Self::Integers) -> Self::Integers;

    /// In each lane the scalar product of four bytes without a sign and four with one, plus an i32, modulo 2^32. Only in sets
    /// that [multiply them](crate::isa::Isa::multiplies_bytes).
    fn bytes(self, _unsigned: Self::Integers, _signed: Self::Integers, _c: Self::Integers) -> Self::Integers {
        unreachable!("products of bytes are for sets that have the instruction")
    }

    /// In each lane the scalar product of two bf16 and two bf16, plus a number. Only in sets that
    /// [multiply them](crate::isa::Isa::multiplies_bf16), and in the portable one, for tests.
    fn pairs_of_bf16(self, _a: Self::Integers, _b: Self::Integers, _c: Self::Vector) -> Self::Vector {
        unreachable!("products of bf16 are for sets that have the instruction")
    }
}

/// Defines a function that is compiled for each instruction set and given the [`Isa`](crate::isa::Isa) to run with as its first argument. One
/// that works with registers itself takes a `simd: impl Simd` in that place; the others leave them to the compiler. What such
/// a function calls has to be inlined into it, hence `#[inline(always)]`. It may be generic over one type.
macro_rules! vectorized {
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident$(<$generic:ident: $bound:path>)?($simd:ident: impl Simd, $($argument:ident: $type:ty),+ $(,)?)
        $body:block
    ) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name$(<$generic: $bound>)?(isa: $crate::isa::Isa, $($argument: $type),+) {
            use $crate::{isa::InstructionSet, kernels::cpu::simd};

            #[inline(always)]
            fn generic<S: simd::Simd, $($generic: $bound)?>($simd: S, $($argument: $type),+) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma")]
            fn avx512bf16$(<$generic: $bound>)?($($argument: $type),+) {
                // SAFETY: this function is compiled for the instructions.
                generic::<_, $($generic)?>(unsafe { simd::Avx512Bf16::new() }, $($argument),+)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
            fn avx512vnni$(<$generic: $bound>)?($($argument: $type),+) {
                // SAFETY: as above.
                generic::<_, $($generic)?>(unsafe { simd::Avx512Vnni::new() }, $($argument),+)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512$(<$generic: $bound>)?($($argument: $type),+) {
                // SAFETY: as above.
                generic::<_, $($generic)?>(unsafe { simd::Avx512::new() }, $($argument),+)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avxvnni")]
            fn avxvnni$(<$generic: $bound>)?($($argument: $type),+) {
                // SAFETY: as above.
                generic::<_, $($generic)?>(unsafe { simd::AvxVnni::new() }, $($argument),+)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2$(<$generic: $bound>)?($($argument: $type),+) {
                // SAFETY: as above.
                generic::<_, $($generic)?>(unsafe { simd::Avx2::new() }, $($argument),+)
            }

            match isa.set() {
                InstructionSet::Portable => generic::<_, $($generic)?>(simd::Portable, $($argument),+),
                // SAFETY: the instructions are part of the target.
                #[cfg(target_arch = "aarch64")]
                InstructionSet::Neon => generic::<_, $($generic)?>(unsafe { simd::Neon::new() }, $($argument),+),
                // SAFETY: the processor has the instructions that the function is compiled for, or there were no such `isa`.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => unsafe { avx2$(::<$generic>)?($($argument),+) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::AvxVnni => unsafe { avxvnni$(::<$generic>)?($($argument),+) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => unsafe { avx512$(::<$generic>)?($($argument),+) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512Vnni => unsafe { avx512vnni$(::<$generic>)?($($argument),+) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512Bf16 | InstructionSet::Amx => unsafe { avx512bf16$(::<$generic>)?($($argument),+) },
            }
        }
    };
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident$(<$generic:ident: $bound:path>)?($($argument:ident: $type:ty),+ $(,)?) $body:block
    ) => {
        $crate::kernels::cpu::simd::vectorized! {
            $(#[$doc])* $vis fn $name$(<$generic: $bound>)?(_simd: impl Simd, $($argument: $type),+) $body
        }
    };
}
pub(crate) use vectorized;

impl crate::isa::Isa {
    /// Numbers in a register.
    pub fn lanes(self) -> usize {
        use crate::isa::InstructionSet;
        match self.set() {
            InstructionSet::Portable => Portable::LANES,
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => Neon::LANES,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::AvxVnni => AvxVnni::LANES,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => Avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni | InstructionSet::Amx => Avx512Vnni::LANES,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => Avx512Bf16::LANES,
        }
    }
}
