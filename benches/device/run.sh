#!/usr/bin/env bash
# Runs every check and timing on this machine's GPU, in order of worth, from the repository's root:
#
#   benches/device/run.sh FOLDER RESULTS [STEP ...]
#
# FOLDER is prepare.sh's. Each step writes RESULTS/STEP.jsonl as it goes; a step whose file ends in `done` is not run again. The step
# `convergence` only runs if it is named: four minutes of the comparison with RoBERTa, on the texts in $TRAIN and $VALID if they are
# set, for the seeds in $SEEDS (0-0). RESULTS/convergence has what it goes on from.
set -uo pipefail
[ $# -ge 2 ] || { sed -n 2,8p "$0"; exit 2; }
folder=$1 results=$2; shift 2
mkdir -p "$results"
unpacked() { # name
  local program=${TMPDIR:-/tmp}/deberta-burn-$1
  [ -x "$program" ] || { xz -dc "$folder/$1.xz" > "$program" && chmod +x "$program"; }
  echo "$program"
}
program=$(unpacked device)
export CUDA_PATH=${CUDA_PATH:-$(realpath "$folder")}
export PYTHONUNBUFFERED=1
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$results/card.txt"

step() { # name, most seconds, command
  local name=$1 seconds=$2; shift 2
  [[ " ${steps[*]} " == *" $name "* ]] || return 0
  tail -1 "$results/$name.jsonl" 2>/dev/null | grep -q '^done' && return 0
  echo "== $name"
  timeout "$seconds" "$@" > "$results/$name.jsonl" 2> "$results/$name.err"
  echo "done $? in $SECONDS s since the start" | tee -a "$results/$name.jsonl"
  tail -3 "$results/$name.err"
}

steps=("$@"); [ ${#steps[@]} -gt 0 ] || steps=(check parity products attention peers model model-small model-large model-f32 peer-models peer-models-small)
step check 90 "$program" check
step parity 90 "$program" parity
step products 60 "$program" products
step attention 60 "$program" attention
step peers 120 python3 benches/device/peers.py
step model 60 "$program" model --profile
step model-small 60 "$program" model --batch 8 --length 128
step model-large 60 "$program" model --preset deberta-v3-large --times 5
step model-f32 60 "$program" model --dtype f32 --times 3
step peer-models 150 python3 benches/device/peer_models.py --dtypes autocast
step peer-models-small 150 python3 benches/device/peer_models.py --dtypes autocast --batch 8 --length 128
if [[ " ${steps[*]} " == *" convergence "* ]]; then
  texts=(); [ -z "${TRAIN:-}" ] || texts=(--train "$TRAIN" --valid "$VALID")
  step convergence 280 "$(unpacked convergence)" --preset gpu-minutes --minutes 4 --seeds "${SEEDS:-0-0}" "${texts[@]}" \
    --output "$results/convergence"
fi
