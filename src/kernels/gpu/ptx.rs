//! The kernels as CUDA's assembler sees them, without a card: every variant is lowered to PTX for an H100, and `ptxas` counts the
//! registers of those for bf16 at the published head size.
//!
//! `CUDA_PATH` has to name a folder with `nvvm/libdevice/libdevice.10.bc` and `bin/ptxas`. `pip install nvidia-cuda-nvcc-cu12`
//! brings it as `nvidia/cuda_nvcc`.

use std::{env, ffi::CStr, fs, path::Path, process::Command, sync::Arc};

use cubecl::{
    Compiler,
    cuda::{CudaCompilationOptions, CudaCompiler, CudaRepresentation},
    ir::{
        AddressType, DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties, MemoryDeviceProperties,
        TargetProperties, VectorSize,
        features::{Features, MmaConfig, Plane},
        nvidia::SmArch,
    },
    prelude::*,
    profile::TimingMethod,
};

use super::{
    adamw, embedding, gelu,
    launch::Kernels,
    portable, residual,
    shared::{NumbersCompilationArg, Variant},
    sums, tensor_core, tensor_core_product,
};

/// The published head size.
const HEAD_SIZE: usize = 64;

/// What a multiprocessor of an H100 has.
const REGISTERS: usize = 65_536;
const SHARED_MEMORY: usize = 227 << 10;

const F32: ElemType = ElemType::Float(FloatKind::F32);
const F16: ElemType = ElemType::Float(FloatKind::F16);
const BF16: ElemType = ElemType::Float(FloatKind::BF16);

/// A kernel that was lowered.
struct Lowered {
    name: String,
    units: usize,
    ptx: String,
    shared_memory: usize,
}

/// What ptxas says about a kernel.
#[derive(Debug)]
struct Resources {
    registers: usize,
    spilled_bytes: usize,
}

/// What an H100 tells about itself, as far as the kernels ask.
fn h100() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: SHARED_MEMORY,
        max_cube_count: (i32::MAX as u32, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(132),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let mut features = Features::default();
    features.plane.insert(Plane::Ops);
    for element in [F16, BF16] {
        features.matmul.ldmatrix.insert(element);
        features.matmul.mma.insert(MmaConfig { a_type: element, b_type: element, cd_type: F32, m: 16, n: 8, k: 16 });
    }
    let identity = DeviceIdentity { name: "H100".into(), fingerprint: "ptx_sm90".into(), physical: None };
    let memory = MemoryDeviceProperties::new(1 << 34, 512);
    Arc::new(DeviceProperties::new(features, memory, hardware, TimingMethod::Device, identity))
}

fn lower(name: String, units: usize, kernel: &impl CubeKernel) -> Lowered {
    let mut options = CudaCompilationOptions { arch: Some(SmArch::new(90, true)), ..Default::default() };
    options.cpp.supports_features.grid_constants = true;
    let module = match CudaCompiler::default().compile(kernel.define(), &options) {
        Ok(CudaRepresentation::Llvm(module)) => module,
        Ok(CudaRepresentation::Cpp(_)) => panic!("the feature `cuda-cpp` is on: there is no PTX"),
        Err(problem) => panic!("{name} (CUDA_PATH is {:?}): {problem}", env::var_os("CUDA_PATH")),
    };
    // SAFETY: the compiler ends its text with a zero.
    let ptx = unsafe { CStr::from_ptr(module.ptx.as_ptr()) }.to_string_lossy().into_owned();
    Lowered { name, units, ptx, shared_memory: module.shared_memory_size }
}

impl Lowered {
    /// Assembles the kernel.
    fn assemble(&self, folder: &Path) -> Resources {
        let root = env::var_os("CUDA_PATH").expect("CUDA_PATH names a CUDA toolkit");
        let source = folder.join(format!("{}.ptx", self.name));
        fs::write(&source, &self.ptx).expect("a folder of its own");
        let output = Command::new(Path::new(&root).join("bin/ptxas"))
            .args(["-v", "-arch=sm_90a", "-o"])
            .args([source.with_extension("cubin"), source])
            .output()
            .unwrap_or_else(|problem| panic!("{root:?}/bin/ptxas: {problem}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", self.name);
        let before = |unit: &str| -> usize {
            let numbers =
                said.split(unit).filter_map(|before| before.split([' ', ',']).next_back()?.parse::<usize>().ok());
            numbers.sum()
        };
        Resources {
            registers: before(" registers"),
            spilled_bytes: before(" bytes spill stores") + before(" bytes spill loads"),
        }
    }
}

/// A tensor that is not in the place of another.
fn tensor() -> TensorCompilationArg {
    TensorCompilationArg {
        meta: TensorMetaCompilationArg { len: (), rank: () },
        buffer: BufferCompilationArg { inplace: None },
    }
}

/// As many of an argument as a kernel takes at once.
fn many<A: LaunchArg>(argument: A::CompilationArg) -> SequenceCompilationArg<A> {
    (0..super::many::MOST).map(|_| argument.clone()).collect()
}

/// Lowers a kernel with tensors, other arguments, and what is fixed at compilation.
macro_rules! lowered {
    (@ $tensor:tt) => {
        tensor()
    };
    ($name:expr, $kernel:ty, $units:expr, [$($tensor:tt)*], $($argument:expr),*) => {{
        let settings = KernelSettings::new(
            CubeDim::new_1d($units as u32).into(),
            ExecutionMode::Checked,
            AddressType::U32,
        );
        let kernel = <$kernel>::new(settings, h100(), Arc::new(TargetProperties::default()), $(lowered!(@ $tensor),)* $($argument),*);
        lower($name, $units, &kernel)
    }};
}

fn numbers() -> NumbersCompilationArg {
    NumbersCompilationArg {
        heads: (),
        query_tokens: (),
        key_tokens: (),
        rows: (),
        rows_at: (),
        positions_at: (),
        unit_steps: (),
        scale: (),
        seed: (),
        first_head: (),
        threshold: (),
        keep: (),
    }
}

fn product_numbers() -> tensor_core_product::kernel::NumbersCompilationArg {
    tensor_core_product::kernel::NumbersCompilationArg {
        rows: (),
        columns: (),
        inner: (),
        of_part: (),
        matrices: (),
        lhs_matrix: (),
        lhs_row: (),
        rhs_matrix: (),
        rhs_row: (),
        output_part: (),
        output_matrix: (),
        output_row: (),
    }
}

/// The three passes of attention, each with every set of position terms, with and without positions of the queries' own and dropout.
fn attention(kernels: Kernels, element: ElemType, head_size: usize) -> Vec<Lowered> {
    let mut all = Vec::new();
    for bits in 0..16 {
        let [c2p, p2c, placed, dropout] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        let marks = [("c2p", c2p), ("p2c", p2c), ("placed", placed), ("dropout", dropout)];
        let marks: Vec<_> = marks.into_iter().filter_map(|(mark, on)| on.then_some(mark)).collect();
        let name = |pass: &str| format!("{kernels:?}-{element}-{head_size}-{pass}-{}", marks.join("-"));
        let sized = |backward: bool| {
            let (own, tile, units) = kernels.sizes(backward);
            (Variant { head_size, own, tile, c2p, p2c, placed, dropout }, units)
        };
        macro_rules! lower_passes {
            ($kernels:ident) => {{
                let (variant, units) = sized(false);
                let kernel = name("forward");
                all.push(lowered!(
                    kernel, $kernels::forward::Forward, units, [_ _ _ _ _ _ _ _], numbers(), variant, element
                ));
                let (variant, units) = sized(true);
                for (keys, pass) in [(false, "queries"), (true, "keys")] {
                    let kernel = name(pass);
                    all.push(lowered!(
                        kernel, $kernels::backward::Backward, units, [_ _ _ _ _ _ _ _ _ _ _ _], numbers(), keys, variant, element
                    ));
                }
            }};
        }
        match kernels {
            Kernels::Portable => lower_passes!(portable),
            Kernels::TensorCore => lower_passes!(tensor_core),
        }
    }
    all
}

/// Asserts what has to hold for attention's kernels at the published head size.
fn assert_attention(kernels: Kernels, elements: &[ElemType], most_spilled: impl Fn(&str) -> usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut misfits = Vec::new();
    for element in elements {
        for kernel in attention(kernels, *element, HEAD_SIZE) {
            let name = &kernel.name;
            for instruction in ["mma.sync.aligned.m16n8k16", "ldmatrix.sync.aligned"] {
                assert_eq!(kernel.ptx.contains(instruction), kernels == Kernels::TensorCore, "{name}: {instruction}");
            }
            // Two cubes at a time, so that one computes while the other waits for memory.
            assert!(2 * kernel.shared_memory <= SHARED_MEMORY, "{name}: {} bytes shared", kernel.shared_memory);
            if *element == BF16 {
                let resources = kernel.assemble(folder.path());
                println!("{name}: {} units, {resources:?}, {} bytes shared", kernel.units, kernel.shared_memory);
                if resources.spilled_bytes > most_spilled(name) || 2 * kernel.units * resources.registers > REGISTERS {
                    misfits.push(format!("{name}: {} units, {resources:?}", kernel.units));
                }
            }
        }
    }
    assert!(misfits.is_empty(), "{misfits:#?}");
}

#[test]
fn attention_on_tensor_cores_fits() {
    // Without position terms ptxas keeps to 128 registers, so that four cubes run at a time, at this price.
    let most = |name: &str| if name.contains("-forward-") && !name.contains('2') { 28 } else { 0 };
    assert_attention(Kernels::TensorCore, &[F16, BF16], most);
}

#[test]
fn portable_attention_fits() {
    // A unit has whole rows of sums here, and the backward pass two and three of them: more than the 255 registers of a unit.
    // These kernels serve what has no tensor cores.
    let most = |name: &str| if name.contains("-forward-") { 0 } else { 1284 };
    assert_attention(Kernels::Portable, &[F32, F16, BF16], most);
}

/// The head sizes of small models, and the largest that tensor cores take.
#[test]
fn other_head_sizes_lower() {
    for head_size in [16, 32, 128] {
        for kernel in attention(Kernels::TensorCore, BF16, head_size) {
            assert!(kernel.shared_memory <= SHARED_MEMORY, "{}: {} bytes shared", kernel.name, kernel.shared_memory);
        }
    }
}

/// Products, for every way that their factors lie in memory.
#[test]
fn products_on_tensor_cores_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut misfits = Vec::new();
    for bits in 0..128 {
        let [lhs_along, rhs_along, narrow, bf16, bias, in_f32, to_f32] =
            [1, 2, 4, 8, 16, 32, 64].map(|bit| bits & bit != 0);
        // Gradients of weights have no bias; where there is none, its type is that of the factors.
        if bias && to_f32 || in_f32 && !bias {
            continue;
        }
        let variant =
            tensor_core_product::kernel::Variant::of(if narrow { 64 } else { 128 }, [lhs_along, rhs_along], bias);
        let element = if bf16 { BF16 } else { F16 };
        let elements = [element, if to_f32 { F32 } else { element }, if in_f32 { F32 } else { element }];
        let name = format!("product-{element}-{}-{bits}", elements[1]);
        let kernel = lowered!(
            name, tensor_core_product::kernel::multiply::Multiply, variant.lhs.units, [_ _ _ _], product_numbers(), variant, elements
        );
        for instruction in ["mma.sync.aligned.m16n8k16", "ldmatrix.sync.aligned.m8n8.x4"] {
            assert!(kernel.ptx.contains(instruction), "{}: {instruction}", kernel.name);
        }
        let resources = kernel.assemble(folder.path());
        println!("{}: {} units, {resources:?}, {} bytes shared", kernel.name, kernel.units, kernel.shared_memory);
        // Two cubes at a time, so that one computes while the other waits for memory.
        let fits = 2 * kernel.units * resources.registers <= REGISTERS && 2 * kernel.shared_memory <= SHARED_MEMORY;
        if resources.spilled_bytes > 0 || !fits {
            misfits.push(format!("{}: {resources:?}", kernel.name));
        }
    }
    assert!(misfits.is_empty(), "{misfits:#?}");
}

/// All other kernels, in the types that training gives them, at the width of the base models.
#[test]
fn rows_and_sums_fit() {
    const WIDTH: usize = 768;
    let mut all = Vec::new();
    for element in [F32, F16, BF16] {
        let mixed = [element, F32];
        for drops in [false, true] {
            let units = residual::kernels::UNITS;
            all.push(lowered!(
                format!("residual-forward-{element}-{drops}"), residual::kernels::forward::Forward, units,
                [_ _ _ _ _ _ _], (), (), (), (), (), WIDTH, true, drops, true, mixed
            ));
            all.push(lowered!(
                format!("residual-backward-{element}-{drops}"), residual::kernels::backward::Backward, units,
                [_ _ _ _ _ _ _ _], (), (), (), (), WIDTH, drops, true, mixed
            ));
        }
        let units = sums::kernels::UNITS;
        for chunk in [sums::CHUNK, sums::FEW] {
            all.push(lowered!(
                format!("sum-chunks-{element}-{chunk}"), sums::kernels::sum_chunks::SumChunks, units,
                [_ _], (), (), chunk, mixed
            ));
        }
        all.push(lowered!(
            format!("dots-{element}"), sums::kernels::dots::Dots, units, [_ _ _], (), WIDTH / HEAD_SIZE, HEAD_SIZE, [element; 2]
        ));
        let (units, line) = (gelu::UNITS, 16 / element.size());
        all.push(lowered!(format!("gelu-{element}"), gelu::kernels::value::Value, units, [_ _], (), line, element));
        all.push(lowered!(
            format!("gelu-backward-{element}"), gelu::kernels::slope::Slope, units, [_ _ _], (), line, element
        ));
        let units = sums::kernels::UNITS;
        all.push(lowered!(
            format!("sum-parts-{element}"), sums::kernels::sum_parts::SumParts, units, [_ _], (), (), 4, element
        ));
        all.push(lowered!(
            format!("sum-rows-{element}"), embedding::kernel::sum_rows::SumRows, embedding::kernel::UNITS,
            [_ _ _], (), (), WIDTH, element
        ));
    }
    for (numbers, adds) in [(4, false), (1, true)] {
        all.push(lowered!(
            format!("squares-{numbers}-{adds}"),
            sums::kernels::squares::Squares,
            sums::kernels::UNITS,
            [],
            many(tensor()),
            tensor(),
            many(()),
            numbers,
            adds
        ));
    }
    all.push(lowered!(
        "adamw".into(),
        adamw::kernel::adamw::Adamw,
        adamw::kernel::UNITS,
        [],
        many(tensor()),
        many(tensor()),
        many(tensor()),
        many(tensor()),
        many(()),
        many(()),
        many(()),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        4
    ));
    let folder = tempfile::tempdir().expect("a folder");
    for kernel in all {
        let resources = kernel.assemble(folder.path());
        assert_eq!(resources.spilled_bytes, 0, "{}: {resources:?}", kernel.name);
    }
}
