#!/usr/bin/env bash
# Laughter prediction on PodcastFillers: frames of a feature, then one model for each loss and shift, and their comparison.
# usage: recipes/laughter/run.sh DATA_DIR OUT_DIR [key=value ...]; DATA_DIR "sample" writes a synthetic corpus
# FEATURES (moshi; sample: logmel), LOSSES (bce,focal,adaptive_focal) and SHIFTS (1,2,5,10,25) from the environment.
# Again with the same OUT_DIR to go on.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -lt 2 ] || { [ "$1" != sample ] && [ ! -d "$1" ]; }; then
    echo "usage: recipes/laughter/run.sh DATA_DIR OUT_DIR [key=value ...] (DATA_DIR: PodcastFillers, or sample)" >&2
    exit 2
fi
data=$1 out=$2
shift 2
python=${PYTHON:-.venv/bin/python}
features=${FEATURES:-moshi}
corpus=(data=podcastfillers "data.root=$data")
training=()
if [ "$data" = sample ]; then
    features=${FEATURES:-logmel}
    corpus=(data=podcastfillers data.source=sample "data.root=$out/PodcastFillers")
    training=(trainer.max_epochs=10 trainer.log_every_n_steps=10 optim.lr=3e-3 optim.warmup_steps=10)
fi
chosen=() rest=()
for argument in "$@"; do
    case $argument in
        data.* | features.*) chosen+=("$argument") ;;
        *) rest+=("$argument") ;;
    esac
done
gpus=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
launcher=("$python")
if [ "$gpus" -gt 1 ]; then
    launcher=("$python" -m torch.distributed.run "--nproc_per_node=$gpus")
fi
store=$out/$features
"${launcher[@]}" main.py task=extract "${corpus[@]}" "features=$features" "out=$store" "${chosen[@]}"
"$python" main.py -m task=laughter "${corpus[@]}" "features=$features" "store=$store" \
    "loss=${LOSSES:-bce,focal,adaptive_focal}" "shift=${SHIFTS:-1,2,5,10,25}" "hydra.sweep.dir=$out/sweep" \
    'hydra.sweep.subdir=${hydra.runtime.choices.loss}-shift${shift}' \
    "${training[@]}" "${chosen[@]}" "${rest[@]}"
"$python" main.py task=laughter stage=compare "${corpus[@]}" "features=$features" "store=$store" "runs=$out/sweep" \
    "hydra.run.dir=$out/compare" "${chosen[@]}"
echo "comparison: $out/sweep/comparison.html"
