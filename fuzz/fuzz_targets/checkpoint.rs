//! Any bytes as a safetensors file: an error, or tensors that lie within the file; never a panic.
//!
//! `cargo fuzz run checkpoint fuzz/corpus/checkpoint fuzz/seeds/checkpoint`; on a stable toolchain with
//! `RUSTC_BOOTSTRAP=1`.

#![no_main]

use std::path::Path;

use deberta_burn::checkpoint::Header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::parse(bytes, Path::new("model.safetensors")) {
        for entry in header.entries {
            let elements: usize = entry.shape.iter().product();
            assert_eq!(bytes[entry.range].len(), elements * entry.dtype.size());
        }
    }
});
