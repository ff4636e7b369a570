//! From `--device cuda:0` to a burn device, or why not.

#[cfg(feature = "remote")]
mod remote;
mod threads;

use burn::tensor::{Device, DeviceType};

use crate::{
    Error, Result,
    isa::{self, Isa},
};

#[cfg(feature = "remote")]
pub use remote::{TOKEN, serve};
pub use threads::one_thread_a_core;

/// A kind of device: its name, the Cargo feature that compiles it in, and what else it needs.
struct Kind {
    name: &'static str,
    /// None where the feature is off.
    device_type: Option<fn() -> DeviceType>,
    needs: &'static str,
}

macro_rules! kind {
    ($name:literal, $variant:ident, $needs:literal) => {
        Kind {
            name: $name,
            #[cfg(feature = $name)]
            device_type: Some(|| DeviceType::$variant),
            #[cfg(not(feature = $name))]
            device_type: None,
            needs: $needs,
        }
    };
}

/// Every kind the crate knows; a kind's name is its feature's.
const KINDS: [Kind; 6] = [
    kind!("flex", Flex, "a CPU"),
    kind!("ndarray", NdArray, "a CPU"),
    kind!("cuda", Cuda, "an NVIDIA GPU and its driver"),
    kind!("vulkan", Vulkan, "a GPU with a Vulkan driver"),
    kind!("wgpu", Wgpu, "a GPU with a Vulkan, Metal or DirectX driver"),
    kind!("metal", Metal, "an Apple GPU"),
];

/// What the names of devices in other processes begin with.
const REMOTE: &str = "remote:";

/// The device of this name: `flex`, `ndarray`, `cuda`, `vulkan`, `wgpu` or `metal`. `:N` behind the name selects the
/// device number N of its kind, counted from 0, which is the default. `remote:HOST:PORT` is the first device that a worker of
/// another process serves there (feature `remote`).
///
/// # Errors
/// [`Error::Device`] if there is no such kind, its feature is not compiled in, or this machine has no such device. On a
/// CPU, also if the processor lacks the instruction set that `DEBERTA_BURN_ISA` names. For a worker, also if it does not answer.
pub fn device(name: &str) -> Result<Device> {
    let error = |problem: String| Error::Device { device: name.to_owned(), problem };
    if let Some(address) = name.strip_prefix(REMOTE) {
        return remote_devices(address)?.into_iter().next().ok_or_else(|| error("the worker serves none".to_owned()));
    }
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => {
            (kind, index.parse::<usize>().map_err(|_| error("expected a number behind the colon".to_owned()))?)
        }
        None => (name, 0),
    };
    let Some(kind) = KINDS.iter().find(|known| known.name == kind) else {
        let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        return Err(error(format!("unknown; expected one of {} or {REMOTE}HOST:PORT", known.join(", "))));
    };
    let Some(device_type) = kind.device_type else {
        return Err(error(format!("not compiled in; build with `--features {}`", kind.name)));
    };
    #[cfg(feature = "gpu")]
    tune_little();
    let found = Device::enumerate(device_type()).into_vec();
    match found.get(index) {
        Some(device) if is_host(device) => Isa::chosen().map(|_| device.clone()).map_err(error),
        Some(device) => Ok(device.clone()),
        None if found.is_empty() => Err(error(format!("none found; it needs {}", kind.needs))),
        None => Err(error(format!("this machine has {} of that kind, counted from 0", found.len()))),
    }
}

/// The devices of the worker at this address.
fn remote_devices(address: &str) -> Result<Vec<Device>> {
    #[cfg(feature = "remote")]
    return remote::devices(address);
    #[cfg(not(feature = "remote"))]
    Err(Error::Device {
        device: format!("{REMOTE}{address}"),
        problem: "not compiled in; build with `--features remote`".to_owned(),
    })
}

/// Whether this is a device of another process.
pub(crate) fn is_remote(of: &Device) -> bool {
    #[cfg(feature = "remote")]
    return remote::is_remote(of);
    #[cfg(not(feature = "remote"))]
    {
        let _ = of;
        false
    }
}

/// Lets burn try few kernels for what is left to it, unless `CUBECL_AUTOTUNE_LEVEL` or a file cubecl.toml says otherwise: each
/// has to be compiled, and a first step would take minutes. An application's own configuration, if it was set before, stays.
#[cfg(feature = "gpu")]
fn tune_little() {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, autotune::AutotuneLevel};
    let mut config = CubeClRuntimeConfig::from_current_dir();
    if matches!(config.autotune.level, AutotuneLevel::Balanced) {
        config.autotune.level = AutotuneLevel::Minimal;
    }
    CubeClRuntimeConfig::try_set(config.override_from_env());
}

/// The devices of these names, with commas between them. A kind without a number means all devices of that kind: `cuda` is every
/// NVIDIA GPU, `cuda:0,cuda:2` are two of them. `remote:HOST:PORT` is all devices of a worker.
///
/// # Errors
/// As [`device`].
pub fn devices(names: &str) -> Result<Vec<Device>> {
    let of = |name: &str| {
        if let Some(address) = name.strip_prefix(REMOTE) {
            return remote_devices(address);
        }
        let first = device(name)?;
        let kind = KINDS.iter().find(|kind| kind.name == name).and_then(|kind| kind.device_type);
        Ok(kind.map_or_else(|| vec![first], |device_type| Device::enumerate(device_type()).into_vec()))
    };
    let found: Vec<_> = names.split(',').map(of).collect::<Result<_>>()?;
    Ok(found.concat())
}

/// A line for a log: the processor, the number of threads, and the instruction set of the CPU kernels. That is the
/// widest one of the processor, unless the environment variable `DEBERTA_BURN_ISA` names a lower one (`portable`,
/// `avx2`, `avxvnni`, `avx512`, `avx512vnni`, `avx512bf16`, `amx`; `neon` on ARM).
///
/// ```
/// println!("{}", deberta_burn::device::describe()); // AMD EPYC, 2 threads, avx512bf16 kernels
/// ```
pub fn describe() -> String {
    let threads = rayon::current_num_threads();
    let plural = if threads == 1 { "" } else { "s" };
    format!("{}, {threads} thread{plural}, {} kernels", isa::processor(), Isa::in_use())
}

/// Seeds the draws of fresh parameters on this device: the same seed gives the same model on every device. They are made on the CPU, by
/// `flex`, when a parameter is first used, and so in the order of these uses; without that feature by the device itself, whose numbers
/// are its own. (What training draws, such as dropout masks, depends on [its own seed](crate::training::TrainingSettings::seed).)
pub fn seed(device: &Device, seed: u64) {
    drawing(device).seed(seed);
}

/// The device whose generator draws the fresh parameters of this one.
pub(crate) fn drawing(of: &Device) -> Device {
    device("flex").unwrap_or_else(|_| of.clone())
}

/// Runs `work` on one of the threads that share the device's work, if it is a CPU: each operation of a pass then begins at
/// once. From another thread, each would wait for one of them to wake up, and for itself to be woken; a short text's pass takes
/// up to twice as long that way.
///
/// `work` must not hold a lock while it runs an operation: the thread may take up other work in the middle of one.
pub(crate) fn in_its_threads<T: Send>(of: &Device, work: impl FnOnce() -> T + Send) -> T {
    if is_host(of) { rayon::scope(|_| work()) } else { work() }
}

/// Whether tensors of this device are in host memory, so that the CPU kernels can work on them.
pub(crate) fn is_host(of: &Device) -> bool {
    let of = of.clone().inner();
    #[cfg(feature = "flex")]
    if of == Device::flex() {
        return true;
    }
    // burn-ndarray is deprecated in favour of burn-flex; it is supported as long as it exists.
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)]
    if of == Device::ndarray() {
        return true;
    }
    false
}

/// The error for results that cannot be read from their device.
pub(crate) fn unreadable(of: &Device, error: impl std::fmt::Display) -> Error {
    Error::Device { device: name(of), problem: format!("its results cannot be read: {error}") }
}

/// The name that [`device`] takes for this device; all devices of a worker have that of the worker.
pub(crate) fn name(of: &Device) -> String {
    #[cfg(feature = "remote")]
    if let Some(name) = remote::name(of) {
        return name;
    }
    let of = of.clone().inner();
    let found = KINDS.iter().find_map(|kind| {
        let index = Device::enumerate(kind.device_type?()).into_vec().iter().position(|device| *device == of)?;
        Some(if index == 0 { kind.name.to_owned() } else { format!("{}:{index}", kind.name) })
    });
    found.unwrap_or_else(|| format!("{of:?}"))
}

/// The kind of this device: its name without the number.
pub(crate) fn kind(of: &Device) -> String {
    let name = name(of);
    name.split(':').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> String {
        device(name).expect_err("no such device").to_string()
    }

    #[test]
    fn names_are_devices() {
        for name in ["flex", "flex:0", "ndarray"] {
            let device = device(name).unwrap();
            assert!(is_host(&device) && is_host(&device.clone().autodiff()), "{name}");
            assert_eq!(super::name(&device), name.trim_end_matches(":0"));
        }
    }

    #[test]
    fn lists_are_devices() {
        let names = |list: &str| devices(list).unwrap().iter().map(name).collect::<Vec<_>>();
        assert_eq!(names("flex"), ["flex"]);
        assert_eq!(names("flex,ndarray,flex:0"), ["flex", "ndarray", "flex"]);
        assert!(devices("flex,flex:7").unwrap_err().to_string().contains("`flex:7`"));
        assert!(devices("flex,").unwrap_err().to_string().contains("expected one of"));
    }

    #[test]
    fn the_description_names_the_kernels() {
        let description = describe();
        assert!(description.ends_with(&format!("{} kernels", Isa::in_use())), "{description}");
        assert!(description.contains("thread"), "{description}");
    }

    #[test]
    fn messages_say_what_is_missing() {
        assert!(message("tpu").contains("expected one of flex, ndarray, cuda"));
        assert!(message("flex:x").contains("expected a number"));
        assert!(message("flex:7").contains("has 1 of that kind"));
        #[cfg(not(feature = "remote"))]
        assert!(message("remote:host:3000").contains("`--features remote`"));
        #[cfg(feature = "remote")]
        assert!(message("remote:3000").contains("expected the host and the port of a worker"));
        #[cfg(not(feature = "cuda"))]
        assert!(message("cuda:1").contains("`--features cuda`"));
    }
}
