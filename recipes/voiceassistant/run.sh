#!/usr/bin/env bash
# VoiceAssistant-400K from SNAC to Mimi tokens, on every GPU of this machine (or its CPU). Run it again to resume.
# usage: recipes/voiceassistant/run.sh [DATA_DIR] [key=value ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
root=data/VoiceAssistant-400K
if [ $# -gt 0 ] && [[ $1 != *=* ]]; then
    root=$1
    shift
fi
if [ ! -d "$root" ]; then
    echo "no folder $root; usage: recipes/voiceassistant/run.sh [DATA_DIR] [key=value ...]" >&2
    exit 2
fi
gpus=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
python=${PYTHON:-.venv/bin/python}
arguments=(task=convert experiment=voiceassistant_snac_to_mimi "data.root=$root" "$@")
if [ "$gpus" -gt 1 ]; then
    exec "$python" -m torch.distributed.run --nproc_per_node="$gpus" main.py "${arguments[@]}"
fi
exec "$python" main.py "${arguments[@]}"
