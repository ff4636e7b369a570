//! The vector instructions of the kernels: the widest set that the processor has and `DEBERTA_BURN_ISA` allows.

use std::{fmt, sync::OnceLock};

/// The environment variable that lowers the choice: the name of an instruction set.
pub(crate) const VARIABLE: &str = "DEBERTA_BURN_ISA";

/// The instruction sets that there are kernels for, from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum InstructionSet {
    /// The instructions that every processor of the target has.
    Portable,
    /// ARM's 128-bit instructions.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 and FMA: 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 with VNNI: sums of products of small integers in one instruction.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// AVX-512 with VNNI, and with products of bf16 that are as fast as those of f32.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// AVX-512 with VNNI and bf16, and AMX: a matrix unit for bytes and bf16.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl InstructionSet {
    /// All of them, from narrow to wide.
    const ALL: &[Self] = &[
        Self::Portable,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512Vnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512Bf16,
        #[cfg(target_arch = "x86_64")]
        Self::Amx,
    ];

    /// Its name in `DEBERTA_BURN_ISA`.
    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => "avx512bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
        }
    }

    /// Whether this processor has the instructions.
    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            // Part of the target.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            // Intel's processors take twice as long for them: no gain over products of f32, which round less.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                Self::Avx512Vnni.is_available()
                    && is_x86_feature_detected!("avx512bf16")
                    && vendor() == *b"AuthenticAMD"
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16") && has_amx(),
        }
    }
}

/// An instruction set that this processor has. Only such a value can be made, so a kernel may rely on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Isa(InstructionSet);

impl Isa {
    /// Those of this processor, from narrow to wide.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        InstructionSet::ALL.iter().copied().filter(|set| set.is_available()).map(Self)
    }

    /// The narrowest of all.
    #[cfg(test)]
    pub fn narrowest() -> Self {
        Self(InstructionSet::Portable)
    }

    /// The widest of this processor.
    pub fn widest() -> Self {
        Self::available().next_back().expect("every processor has the portable instructions")
    }

    /// The one in use, determined at the first call. A choice that is [not possible](Self::chosen) is ignored here;
    /// [`device`](crate::device::device) returns an error for it.
    pub fn in_use() -> Self {
        static CHOSEN: OnceLock<Isa> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            Self::chosen().unwrap_or_else(|problem| {
                tracing::warn!("{problem}; using {}", Self::widest());
                Self::widest()
            })
        })
    }

    /// The one that `DEBERTA_BURN_ISA` names, the widest if it names none.
    ///
    /// # Errors
    /// A message, if there is no such instruction set or the processor lacks it.
    pub fn chosen() -> Result<Self, String> {
        match std::env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => Self::named(&name.to_string_lossy()),
            _ => Ok(Self::widest()),
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        let available: Vec<_> = Self::available().map(|isa| isa.set().name()).collect();
        let available = available.join(", ");
        let Some(set) = InstructionSet::ALL.iter().find(|set| set.name() == name) else {
            return Err(format!("{VARIABLE} is `{name}`, which names no instruction set; expected one of {available}"));
        };
        match set.is_available() {
            true => Ok(Self(*set)),
            false => Err(format!("{VARIABLE} is `{name}`, which is not for this processor; it has {available}")),
        }
    }

    /// Whether it has sums of products of bytes.
    pub fn multiplies_bytes(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == InstructionSet::AvxVnni || self.0 >= InstructionSet::Avx512Vnni;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether its registers have sums of products of bf16.
    pub fn multiplies_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == InstructionSet::Avx512Bf16;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether it has a matrix unit, which multiplies tiles of bytes and of bf16.
    pub fn multiplies_tiles(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == InstructionSet::Amx;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether it multiplies bf16 by either.
    pub fn multiplies_any_bf16(self) -> bool {
        self.multiplies_bf16() || self.multiplies_tiles()
    }

    /// Which one it is.
    pub fn set(self) -> InstructionSet {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.name())
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Who made the processor.
#[cfg(target_arch = "x86_64")]
fn vendor() -> [u8; 12] {
    let leaf = std::arch::x86_64::__cpuid(0);
    let mut name = [0; 12];
    for (part, register) in name.as_chunks_mut::<4>().0.iter_mut().zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        *part = register.to_le_bytes();
    }
    name
}

/// Whether the processor has AMX for bytes and bf16, and Linux lets this process use its tiles: 8 KB more to save whenever it
/// interrupts a thread, which it keeps no room for unless asked.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let leaf = |number| std::arch::x86_64::__cpuid_count(number, 0);
        // Tiles, products of bytes, products of bf16.
        let bits = 1 << 24 | 1 << 25 | 1 << 22;
        leaf(0).eax >= 7 && leaf(7).edx & bits == bits && may_use_tiles()
    })
}

/// Asks for the permission.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn may_use_tiles() -> bool {
    // The system call, its request for a part of the processor's state, and the number of the tiles' part (asm/prctl.h).
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: i64 = 0x1023;
    const TILES: i64 = 18;
    let result: i64;
    // SAFETY: the call reads no memory of this process and writes none. It fails where Linux knows no such request.
    unsafe {
        std::arch::asm!(
            "syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") REQUEST, in("rsi") TILES,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    result == 0
}

/// Other systems are not known to the kernels.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn may_use_tiles() -> bool {
    false
}

/// The name that the processor reports, if it does.
pub(crate) fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        // Leaves 0x8000_0002 to 4 hold 48 characters.
        if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
            let leaves = (0x8000_0002..=0x8000_0004).map(__cpuid);
            let registers = leaves.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
            let bytes: Vec<u8> = registers.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
            return String::from_utf8_lossy(&bytes).trim().to_owned();
        }
    }
    format!("{} processor", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_what_the_processor_has() {
        assert_eq!(Isa::named("portable").unwrap().set(), InstructionSet::Portable);
        for isa in Isa::available() {
            assert_eq!(Isa::named(&isa.to_string()).unwrap(), isa);
            assert!(isa <= Isa::widest());
        }
        let problem = Isa::named("avx1024").unwrap_err();
        assert!(problem.contains("names no instruction set") && problem.contains("portable"), "{problem}");
        for set in InstructionSet::ALL.iter().filter(|set| !set.is_available()) {
            assert!(Isa::named(set.name()).unwrap_err().contains("not for this processor"));
        }
    }
}
