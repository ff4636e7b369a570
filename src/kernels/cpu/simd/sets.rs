//! The instruction sets' own vectors.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;

use half::bf16;

use super::Simd;

/// A [`Simd`] of a set's own instructions: its registers and sizes, and an expression for each method.
macro_rules! simd {
    (
        $(#[$doc:meta])*
        $name:ident: $vector:ident, $integers:ident, $lanes:literal lanes, $rows:literal rows;
        $($method:ident($($argument:ident),+) => $value:expr;)+
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
            type Integers = arch::$integers;

            const LANES: usize = $lanes;
            const TILE_ROWS: usize = $rows;
            const FUSES: bool = true;

            $(simd! { @method $method($($argument),+) => $value })+
        }
    };

    (@method splat($value:ident) => $result:expr) => {
        simd! { @safe splat($value: f32) -> Self::Vector => $result }
    };
    (@method load($from:ident) => $result:expr) => {
        simd! { @unsafe load($from: *const f32) -> Self::Vector => $result }
    };
    (@method load_bf16($from:ident) => $result:expr) => {
        simd! { @unsafe load_bf16($from: *const bf16) -> Self::Vector => $result }
    };
    (@method store($to:ident, $vector:ident) => $result:expr) => {
        simd! { @unsafe store($to: *mut f32, $vector: Self::Vector) -> () => $result }
    };
    (@method store_bf16($to:ident, $vector:ident) => $result:expr) => {
        simd! { @unsafe store_bf16($to: *mut bf16, $vector: Self::Vector) -> () => $result }
    };
    (@method store_pairs_of_bf16($to:ident, $low:ident, $high:ident) => $result:expr) => {
        simd! { @unsafe store_pairs_of_bf16($to: *mut bf16, $low: Self::Vector, $high: Self::Vector) -> () => $result }
    };
    (@method add($a:ident, $b:ident) => $result:expr) => {
        simd! { @safe add($a: Self::Vector, $b: Self::Vector) -> Self::Vector => $result }
    };
    (@method multiply($a:ident, $b:ident) => $result:expr) => {
        simd! { @safe multiply($a: Self::Vector, $b: Self::Vector) -> Self::Vector => $result }
    };
    (@method multiply_add($a:ident, $b:ident, $c:ident) => $result:expr) => {
        simd! { @safe multiply_add($a: Self::Vector, $b: Self::Vector, $c: Self::Vector) -> Self::Vector => $result }
    };
    (@method splat_integers($value:ident) => $result:expr) => {
        simd! { @safe splat_integers($value: i32) -> Self::Integers => $result }
    };
    (@method load_integers($from:ident) => $result:expr) => {
        simd! { @unsafe load_integers($from: *const i32) -> Self::Integers => $result }
    };
    (@method load_bytes($from:ident) => $result:expr) => {
        simd! { @unsafe load_bytes($from: *const i8) -> Self::Integers => $result }
    };
    (@method to_floats($integers:ident) => $result:expr) => {
        simd! { @safe to_floats($integers: Self::Integers) -> Self::Vector => $result }
    };
    (@method pairs_of_bf16($a:ident, $b:ident, $c:ident) => $result:expr) => {
        simd! { @safe pairs_of_bf16($a: Self::Integers, $b: Self::Integers, $c: Self::Vector) -> Self::Vector => $result }
    };
    (@method pick($from:ident, $indices:ident) => $result:expr) => {
        simd! { @safe pick($from: Self::Vector, $indices: Self::Integers) -> Self::Vector => $result }
    };
    (@method select($lanes:ident, $a:ident, $b:ident) => $result:expr) => {
        simd! { @safe select($lanes: Self::Integers, $a: Self::Vector, $b: Self::Vector) -> Self::Vector => $result }
    };
    (@method difference($a:ident, $b:ident) => $result:expr) => {
        simd! { @safe difference($a: Self::Integers, $b: Self::Integers) -> Self::Integers => $result }
    };
    (@method $product:ident($a:ident, $b:ident, $c:ident) => $result:expr) => {
        simd! { @safe $product($a: Self::Integers, $b: Self::Integers, $c: Self::Integers) -> Self::Integers => $result }
    };

    (@safe $method:ident($($argument:ident: $type:ty),+) -> $output:ty => $value:expr) => {
        #[inline(always)]
        fn $method(self, $($argument: $type),+) -> $output {
            // SAFETY: the token says that the processor has the instructions.
            unsafe { $value }
        }
    };
    (@unsafe $method:ident($($argument:ident: $type:ty),+) -> $output:ty => $value:expr) => {
        #[inline(always)]
        unsafe fn $method(self, $($argument: $type),+) -> $output {
            // SAFETY: the token says that the processor has the instructions; the rest is the caller's promise.
            unsafe { $value }
        }
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! avx512 {
    ($(#[$doc:meta])* $name:ident; $($integers:tt)+) => {
        simd! {
            $(#[$doc])*
            $name: __m512, __m512i, 16 lanes, 12 rows;
            splat(value) => arch::_mm512_set1_ps(value);
            load(from) => arch::_mm512_loadu_ps(from);
            load_bf16(from) => {
                let wide = arch::_mm512_cvtepu16_epi32(arch::_mm256_loadu_si256(from.cast()));
                arch::_mm512_castsi512_ps(arch::_mm512_slli_epi32::<16>(wide))
            };
            store(to, vector) => arch::_mm512_storeu_ps(to, vector);
            add(a, b) => arch::_mm512_add_ps(a, b);
            multiply(a, b) => arch::_mm512_mul_ps(a, b);
            multiply_add(a, b, c) => arch::_mm512_fmadd_ps(a, b, c);
            splat_integers(value) => arch::_mm512_set1_epi32(value);
            load_integers(from) => arch::_mm512_loadu_si512(from.cast());
            load_bytes(from) => arch::_mm512_cvtepi8_epi16(arch::_mm256_loadu_si256(from.cast()));
            difference(a, b) => arch::_mm512_sub_epi32(a, b);
            pick(from, indices) => arch::_mm512_permutexvar_ps(indices, from);
            select(lanes, a, b) => arch::_mm512_mask_blend_ps(arch::_mm512_movepi32_mask(lanes), b, a);
            to_floats(integers) => arch::_mm512_cvtepi32_ps(integers);
            $($integers)+
        }
    };
}

#[cfg(target_arch = "x86_64")]
avx512! {
    /// 32 registers: 24 sums. Products of integers are added to their sums by an instruction of its own.
    Avx512;
    pairs(a, b, c) => arch::_mm512_add_epi32(arch::_mm512_madd_epi16(a, b), c);
}

#[cfg(target_arch = "x86_64")]
avx512! {
    /// As [`Avx512`], with sums of products of integers in one instruction.
    Avx512Vnni;
    pairs(a, b, c) => dot_pairs_512(a, b, c);
    bytes(unsigned, signed, c) => arch::_mm512_dpbusd_epi32(c, unsigned, signed);
}

#[cfg(target_arch = "x86_64")]
avx512! {
    /// As [`Avx512Vnni`], with sums of products of bf16.
    Avx512Bf16;
    pairs(a, b, c) => dot_pairs_512(a, b, c);
    bytes(unsigned, signed, c) => arch::_mm512_dpbusd_epi32(c, unsigned, signed);
    pairs_of_bf16(a, b, c) => arch::_mm512_dpbf16_ps(c, bits(a), bits(b));
    store_bf16(to, vector) => to.cast::<arch::__m256bh>().write_unaligned(arch::_mm512_cvtneps_pbh(vector));
    store_pairs_of_bf16(to, low, high) => {
        // First all low ones, then all high ones; they take turns.
        let halves: arch::__m512i = std::mem::transmute(arch::_mm512_cvtne2ps_pbh(high, low));
        let turns = arch::_mm512_loadu_si512(TURNS.as_ptr().cast());
        arch::_mm512_storeu_si512(to.cast(), arch::_mm512_permutexvar_epi16(turns, halves));
    };
}

/// 0, 16, 1, 17, ..
#[cfg(target_arch = "x86_64")]
static TURNS: [i16; 32] = {
    let mut turns = [0; 32];
    let mut number = 0;
    while number < turns.len() {
        turns[number] = (number / 2 + number % 2 * 16) as i16;
        number += 1;
    }
    turns
};

/// Registers of pairs of bf16.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn bits(pairs: arch::__m512i) -> arch::__m512bh {
    // SAFETY: both are 64 bytes, and any bytes are bf16.
    unsafe { std::mem::transmute(pairs) }
}

#[cfg(target_arch = "x86_64")]
macro_rules! avx2 {
    ($(#[$doc:meta])* $name:ident; $($integers:tt)+) => {
        simd! {
            $(#[$doc])*
            $name: __m256, __m256i, 8 lanes, 6 rows;
            splat(value) => arch::_mm256_set1_ps(value);
            load(from) => arch::_mm256_loadu_ps(from);
            load_bf16(from) => {
                let wide = arch::_mm256_cvtepu16_epi32(arch::_mm_loadu_si128(from.cast()));
                arch::_mm256_castsi256_ps(arch::_mm256_slli_epi32::<16>(wide))
            };
            store(to, vector) => arch::_mm256_storeu_ps(to, vector);
            add(a, b) => arch::_mm256_add_ps(a, b);
            multiply(a, b) => arch::_mm256_mul_ps(a, b);
            multiply_add(a, b, c) => arch::_mm256_fmadd_ps(a, b, c);
            splat_integers(value) => arch::_mm256_set1_epi32(value);
            load_integers(from) => arch::_mm256_loadu_si256(from.cast());
            load_bytes(from) => arch::_mm256_cvtepi8_epi16(arch::_mm_loadu_si128(from.cast()));
            difference(a, b) => arch::_mm256_sub_epi32(a, b);
            pick(from, indices) => arch::_mm256_permutevar8x32_ps(from, indices);
            select(lanes, a, b) => arch::_mm256_blendv_ps(b, a, arch::_mm256_castsi256_ps(lanes));
            to_floats(integers) => arch::_mm256_cvtepi32_ps(integers);
            $($integers)+
        }
    };
}

#[cfg(target_arch = "x86_64")]
avx2! {
    /// 16 registers: 12 sums.
    Avx2;
    pairs(a, b, c) => arch::_mm256_add_epi32(arch::_mm256_madd_epi16(a, b), c);
}

#[cfg(target_arch = "x86_64")]
avx2! {
    /// As [`Avx2`], with sums of products of integers in one instruction.
    AvxVnni;
    pairs(a, b, c) => dot_pairs_256(a, b, c);
    bytes(unsigned, signed, c) => arch::_mm256_dpbusd_avx_epi32(c, unsigned, signed);
}

/// Defines the function for `vpdpwssd`, which adds the products of pairs of i16 to c. LLVM turns the intrinsic functions for it
/// into a product and a sum, which are twice as many instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! dot_pairs {
    ($name:ident: $vector:ident in $register:ident, $features:literal, $instruction:literal) => {
        #[target_feature(enable = $features)]
        #[inline]
        fn $name(a: arch::$vector, b: arch::$vector, mut c: arch::$vector) -> arch::$vector {
            // SAFETY: the function is compiled for the instruction, which touches nothing but these registers.
            unsafe {
                std::arch::asm!(
                    concat!($instruction, " {c}, {a}, {b}"), a = in($register) a, b = in($register) b, c = inout($register) c,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            c
        }
    };
}

#[cfg(target_arch = "x86_64")]
dot_pairs!(dot_pairs_512: __m512i in zmm_reg, "avx512f,avx512vnni", "vpdpwssd");
#[cfg(target_arch = "x86_64")]
dot_pairs!(dot_pairs_256: __m256i in ymm_reg, "avx2,avxvnni", "{{vex}} vpdpwssd");

#[cfg(target_arch = "aarch64")]
simd! {
    /// 32 registers: 24 sums.
    Neon: float32x4_t, int32x4_t, 4 lanes, 12 rows;
    splat(value) => arch::vdupq_n_f32(value);
    load(from) => arch::vld1q_f32(from);
    load_bf16(from) => arch::vreinterpretq_f32_u32(arch::vshll_n_u16::<16>(arch::vld1_u16(from.cast())));
    store(to, vector) => arch::vst1q_f32(to, vector);
    add(a, b) => arch::vaddq_f32(a, b);
    multiply(a, b) => arch::vmulq_f32(a, b);
    multiply_add(a, b, c) => arch::vfmaq_f32(c, a, b);
    splat_integers(value) => arch::vdupq_n_s32(value);
    load_integers(from) => arch::vld1q_s32(from);
    load_bytes(from) => arch::vreinterpretq_s32_s16(arch::vmovl_s8(arch::vld1_s8(from)));
    difference(a, b) => arch::vsubq_s32(a, b);
    pick(from, indices) => {
        // The four bytes of each.
        let bytes = arch::vmlaq_n_s32(arch::vdupq_n_s32(0x0302_0100), indices, 0x0404_0404);
        let table = arch::vreinterpretq_u8_f32(from);
        arch::vreinterpretq_f32_u8(arch::vqtbl1q_u8(table, arch::vreinterpretq_u8_s32(bytes)))
    };
    select(lanes, a, b) => arch::vbslq_f32(arch::vreinterpretq_u32_s32(lanes), a, b);
    to_floats(integers) => arch::vcvtq_f32_s32(integers);
    pairs(a, b, c) => {
        let (a, b) = (arch::vreinterpretq_s16_s32(a), arch::vreinterpretq_s16_s32(b));
        let low = arch::vmull_s16(arch::vget_low_s16(a), arch::vget_low_s16(b));
        arch::vaddq_s32(c, arch::vpaddq_s32(low, arch::vmull_high_s16(a, b)))
    };
}
