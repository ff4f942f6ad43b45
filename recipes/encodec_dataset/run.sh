#!/usr/bin/env bash
# From wavs with their parameters in the names to a toy conditional model; without a folder, on synthetic tones.
#   recipes/encodec_dataset/run.sh [DATA_DIR] [key=value ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=outputs/demo/tones-encodec
settings=()
if [[ $# -gt 0 && $1 != *=* ]]; then
  out="extracted/$(basename "$1")-encodec"
  settings=(data.source=disk "data.root=$1" codec.weights=facebook/encodec_24khz)
  shift
fi
python=.venv/bin/python
"$python" main.py experiment=encodec_dataset "${settings[@]}" "out=$out" "$@"
"$python" recipes/encodec_dataset/train.py "$out/dataset"
