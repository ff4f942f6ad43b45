#!/usr/bin/env bash
# A speech tokenizer of LibriSpeech: train, measure, listen. One GPU, all GPUs of this machine, or its CPU.
# usage: recipes/librispeech_tokenizer/run.sh DATA_DIR RUN_DIR [key=value ...]; again with the same RUN_DIR to go on
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -lt 2 ] || [ ! -d "$1" ]; then
    echo "usage: recipes/librispeech_tokenizer/run.sh DATA_DIR RUN_DIR [key=value ...]" >&2
    exit 2
fi
root=$1 run=$2
shift 2
gpus=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
python=${PYTHON:-.venv/bin/python}
arguments=(task=train_tokenizer "data.root=$root" "$@")
if [ "$gpus" -eq 0 ]; then
    arguments=(experiment=librispeech_tokenizer "${arguments[@]:1}")
fi
launcher=("$python")
if [ "$gpus" -gt 1 ]; then
    launcher=("$python" -m torch.distributed.run "--nproc_per_node=$gpus")
fi
place="hydra.run.dir=$run"
if [ -f "$run/checkpoints/last.ckpt" ]; then
    place="resume=$run"
fi
"${launcher[@]}" main.py "${arguments[@]}" "$place"
# On the split that it was validated on: the same corpus, dealt in the same way.
corpus=()
for argument in "$@"; do
    case $argument in data=* | data.* | test.* | device=*) corpus+=("$argument") ;; esac
done
"$python" main.py task=train_tokenizer stage=test "data.root=$root" "codec.weights=$run" "${corpus[@]}"
