//! Vector arithmetic behind one trait, so that a kernel is written once, and functions compiled once for each instruction set.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;

/// Vectors of f32 in the registers of one instruction set. Its values are tokens: whoever has one runs in a function that
/// [`vectorized!`] compiled for the set, and on a processor that has it.
pub(crate) trait Simd: Copy {
    /// A register.
    type Vector: Copy;

    /// Numbers in a register.
    const LANES: usize;

    /// Rows of a product's tile, which is two registers wide: as many as leave registers for two vectors of weights, one
    /// state, and what the multiplications of processors without a combined instruction need.
    const TILE_ROWS: usize;

    /// The same number in every lane.
    fn splat(self, value: f32) -> Self::Vector;

    /// # Safety
    /// [`LANES`](Self::LANES) numbers can be read.
    unsafe fn load(self, from: *const f32) -> Self::Vector;

    /// # Safety
    /// [`LANES`](Self::LANES) numbers can be written.
    unsafe fn store(self, to: *mut f32, vector: Self::Vector);

    /// a b + c, rounded once or twice as the processor has it.
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
}

/// Defines a function that is compiled for each instruction set and given the [`Isa`](crate::isa::Isa) to run with as its first argument. One
/// that works with registers itself takes a `simd: impl Simd` in that place; the others leave them to the compiler. What such
/// a function calls has to be inlined into it, hence `#[inline(always)]`.
macro_rules! vectorized {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($simd:ident: impl Simd, $($argument:ident: $type:ty),+ $(,)?) $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::isa::Isa, $($argument: $type),+) {
            use $crate::{isa::InstructionSet, kernels::cpu::simd};

            #[inline(always)]
            fn generic($simd: impl simd::Simd, $($argument: $type),+) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($argument: $type),+) {
                // SAFETY: this function is compiled for the instructions.
                generic(unsafe { simd::Avx512::new() }, $($argument),+)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),+) {
                // SAFETY: as above.
                generic(unsafe { simd::Avx2::new() }, $($argument),+)
            }

            match isa.set() {
                InstructionSet::Portable => generic(simd::Portable, $($argument),+),
                // SAFETY: the instructions are part of the target.
                #[cfg(target_arch = "aarch64")]
                InstructionSet::Neon => generic(unsafe { simd::Neon::new() }, $($argument),+),
                // SAFETY: the processor has the instructions that the function is compiled for, or there were no such `isa`.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => unsafe { avx2($($argument),+) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => unsafe { avx512($($argument),+) },
            }
        }
    };
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),+ $(,)?) $body:block) => {
        $crate::kernels::cpu::simd::vectorized! { $(#[$doc])* $vis fn $name(_simd: impl Simd, $($argument: $type),+) $body }
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
            InstructionSet::Avx512 => Avx512::LANES,
        }
    }
}

/// Four lanes of plain arithmetic, which compilers turn into the 128-bit registers that most processors have.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type Vector = [f32; 4];

    const LANES: usize = 4;
    // Faster than 6 on x86, whose 16 registers hold the products too.
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 4] {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write(vector) }
    }

    #[inline(always)]
    fn multiply_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // In two steps: `f32::mul_add` is a call where the processor has no such instruction.
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }
}

/// A [`Simd`] of a set's own instructions.
macro_rules! simd {
    (
        $(#[$doc:meta])*
        $name:ident: $vector:ident, $lanes:literal lanes, $rows:literal rows,
        $splat:ident, $load:ident, $store:ident, |$a:ident, $b:ident, $c:ident| $multiply_add:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name(());

        impl $name {
            /// # Safety
            /// The token stays in a function that is compiled for the instructions.
            #[inline(always)]
            pub unsafe fn new() -> Self {
                Self(())
            }
        }

        impl Simd for $name {
            type Vector = arch::$vector;

            const LANES: usize = $lanes;
            const TILE_ROWS: usize = $rows;

            #[inline(always)]
            fn splat(self, value: f32) -> Self::Vector {
                // SAFETY: the token says that the processor has the instructions.
                unsafe { arch::$splat(value) }
            }

            #[inline(always)]
            unsafe fn load(self, from: *const f32) -> Self::Vector {
                // SAFETY: as above, and the caller's promise.
                unsafe { arch::$load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32, vector: Self::Vector) {
                // SAFETY: as above, and the caller's promise.
                unsafe { arch::$store(to, vector) }
            }

            #[inline(always)]
            fn multiply_add(self, $a: Self::Vector, $b: Self::Vector, $c: Self::Vector) -> Self::Vector {
                // SAFETY: as above.
                unsafe { $multiply_add }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
simd! {
    /// 32 registers: 24 sums.
    Avx512: __m512, 16 lanes, 12 rows, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
    |a, b, c| arch::_mm512_fmadd_ps(a, b, c)
}

#[cfg(target_arch = "x86_64")]
simd! {
    /// 16 registers: 12 sums.
    Avx2: __m256, 8 lanes, 6 rows, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
    |a, b, c| arch::_mm256_fmadd_ps(a, b, c)
}

#[cfg(target_arch = "aarch64")]
simd! {
    /// 32 registers: 24 sums.
    Neon: float32x4_t, 4 lanes, 12 rows, vdupq_n_f32, vld1q_f32, vst1q_f32,
    |a, b, c| arch::vfmaq_f32(c, a, b)
}
