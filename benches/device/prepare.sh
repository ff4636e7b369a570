#!/usr/bin/env bash
# Builds what run.sh needs into one folder that can be copied to a machine with a GPU and nothing else: the programs, LLVM's library
# of device functions, and the peer's wheel.
#
#   benches/device/prepare.sh FOLDER
#
# The CUDA backend's build script downloads LLVM.
set -euo pipefail
[ $# -eq 1 ] || { sed -n 2,7p "$0"; exit 2; }
cd "$(dirname "$0")/../.."
mkdir -p "$1"
cargo build --release --features "${FEATURES:-cuda}" --bench device
cargo build --release --features "${FEATURES:-cuda}" -p convergence
strip -o "$1/device" "$(ls -t target/release/deps/device-* | grep -v '\.d$' | head -1)"
strip -o "$1/convergence" target/release/convergence
xz -T0 -6 -f "$1/device" "$1/convergence"
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --no-deps --dest "$scratch" nvidia-cuda-nvcc-cu12==12.9.86 disentangled-flash==1.1.1
mkdir -p "$1/nvvm/libdevice"
unzip -p "$scratch"/nvidia_cuda_nvcc*.whl nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc > "$1/nvvm/libdevice/libdevice.10.bc"
cp "$scratch"/disentangled_flash*.whl "$1"
ls -la "$1"
