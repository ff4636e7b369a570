//! Vectors of processors of which nothing is known.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64;

use half::bf16;

use super::Simd;

/// Four lanes of plain arithmetic, which compilers turn into the 128-bit registers that most processors have; but for what they
/// fail to turn into the instructions that every x86-64 processor has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type Vector = [f32; 4];
    type Integers = [i32; 4];

    const LANES: usize = 4;
    // Faster than 6 on x86, whose 16 registers hold the products too.
    const TILE_ROWS: usize = 4;
    const FUSES: bool = false;

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
    unsafe fn load_bf16(self, from: *const bf16) -> [f32; 4] {
        // SAFETY: the caller's promise.
        widened(unsafe { from.cast::<[u16; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write(vector) }
    }

    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn multiply(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn multiply_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // In two steps: `f32::mul_add` is a call where the processor has no such instruction.
        lanes(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn splat_integers(self, value: i32) -> [i32; 4] {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load_integers(self, from: *const i32) -> [i32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[i32; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn load_bytes(self, from: *const i8) -> [i32; 4] {
        // SAFETY: the caller's promise.
        widened_bytes(unsafe { from.cast::<[i8; 8]>().read() })
    }

    #[inline(always)]
    fn difference(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        lanes(|lane| a[lane].wrapping_sub(b[lane]))
    }

    #[inline(always)]
    fn pick(self, from: [f32; 4], indices: [i32; 4]) -> [f32; 4] {
        lanes(|lane| from[indices[lane] as usize % 4])
    }

    #[inline(always)]
    fn select(self, which: [i32; 4], a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let bits = |value: f32| value.to_bits() as i32;
        lanes(|lane| f32::from_bits((bits(a[lane]) & which[lane] | bits(b[lane]) & !which[lane]) as u32))
    }

    #[inline(always)]
    fn to_floats(self, integers: [i32; 4]) -> [f32; 4] {
        lanes(|lane| integers[lane] as f32)
    }

    #[inline(always)]
    fn pairs(self, a: [i32; 4], b: [i32; 4], c: [i32; 4]) -> [i32; 4] {
        let products = products_of_pairs(a, b);
        lanes(|lane| products[lane].wrapping_add(c[lane]))
    }

    #[inline(always)]
    fn pairs_of_bf16(self, a: [i32; 4], b: [i32; 4], c: [f32; 4]) -> [f32; 4] {
        let low = |pair: i32| f32::from_bits((pair as u32) << 16);
        let high = |pair: i32| f32::from_bits(pair as u32 & 0xffff_0000);
        lanes(|lane| c[lane] + low(a[lane]) * low(b[lane]) + high(a[lane]) * high(b[lane]))
    }
}

#[inline(always)]
fn lanes<T>(value: impl Fn(usize) -> T) -> [T; 4] {
    [value(0), value(1), value(2), value(3)]
}

/// The f32 of bf16.
#[inline(always)]
fn widened(bits: [u16; 4]) -> [f32; 4] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has these instructions.
    return unsafe {
        let bits = x86_64::_mm_set_epi64x(0, bytemuck::cast(bits));
        bytemuck::cast(x86_64::_mm_unpacklo_epi16(x86_64::_mm_setzero_si128(), bits))
    };
    #[cfg(not(target_arch = "x86_64"))]
    lanes(|lane| f32::from_bits(u32::from(bits[lane]) << 16))
}

/// Bytes as i16.
#[inline(always)]
fn widened_bytes(bytes: [i8; 8]) -> [i32; 4] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    return unsafe {
        let bytes = x86_64::_mm_set_epi64x(0, bytemuck::cast(bytes));
        let up = x86_64::_mm_unpacklo_epi8(x86_64::_mm_setzero_si128(), bytes);
        bytemuck::cast(x86_64::_mm_srai_epi16::<8>(up))
    };
    #[cfg(not(target_arch = "x86_64"))]
    lanes(|lane| i32::from(bytes[2 * lane]) & 0xffff | i32::from(bytes[2 * lane + 1]) << 16)
}

/// In each lane the scalar product of two i16 and two i16.
#[inline(always)]
fn products_of_pairs(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    return unsafe { bytemuck::cast(x86_64::_mm_madd_epi16(bytemuck::cast(a), bytemuck::cast(b))) };
    #[cfg(not(target_arch = "x86_64"))]
    {
        let low = |pair: i32| i32::from(pair as i16);
        lanes(|lane| (low(a[lane]) * low(b[lane])).wrapping_add((a[lane] >> 16) * (b[lane] >> 16)))
    }
}
