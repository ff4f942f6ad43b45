#!/usr/bin/env bash
# From the folder of BEAT2 to a table of metrics: check, features, four tokenizers, the model with its test, motion.
# usage: recipes/beat2_a2g/run.sh DATA_DIR OUT_DIR [key=value ...]; DATA_DIR "sample" writes a synthetic corpus
# FEATURES (wavlm), TOKENIZER (a2g_tokenizer) and AUDIO (a file or folder to generate for) from the environment; with
# sample small networks throughout. Again with the same OUT_DIR to go on. key=value go to the last training; besides,
# data.* to every step, those of features to their extraction, and what concerns motion of recordings there.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -lt 2 ] || { [ "$1" != sample ] && [ ! -d "$1" ]; }; then
    echo "usage: recipes/beat2_a2g/run.sh DATA_DIR OUT_DIR [key=value ...] (DATA_DIR: BEAT2, or sample)" >&2
    exit 2
fi
data=$1 out=$2
shift 2
python=${PYTHON:-.venv/bin/python}
features=${FEATURES:-wavlm} tokenizer=${TOKENIZER:-a2g_tokenizer} model=(task=a2g)
corpus=(data.source=disk "data.root=$data" "data.store=$out/motion")
audio=${AUDIO:-}
if [ "$data" = sample ]; then
    features=${FEATURES:-wavlm_tiny} tokenizer=${TOKENIZER:-a2g_tokenizer_tiny} model=(experiment=a2g_tiny)
    corpus=(data.source=sample "data.root=$out/BEAT2" "data.store=$out/motion")
    audio=${AUDIO:-$out/BEAT2-sample/beat_english_v2.0.0/wave16k/2_scott_0_1_1.wav}
fi
acoustic=mfcc
rest=() making=() speech=() sound=()
for argument in "$@"; do
    case $argument in
        data.*) corpus+=("$argument") ;;
        features=*) features=${argument#*=} ;;
        features@acoustic=*) acoustic=${argument#*=} ;;
        features.*) speech+=("$argument") ;;
        acoustic.*) sound+=("$argument") ;;
        sampling.* | generate.* | render=* | body.* | device=*)
            rest+=("$argument") making+=("$argument")
            ;;
        *) rest+=("$argument") ;;
    esac
done
gpus=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
launcher=("$python")
if [ "$gpus" -gt 1 ]; then
    launcher=("$python" -m torch.distributed.run "--nproc_per_node=$gpus")
fi
# A run that was stopped is gone on with; one that is done is done.
train() {
    local run=$1
    shift
    local place="hydra.run.dir=$run"
    if [ -f "$run/checkpoints/last.ckpt" ]; then
        place="resume=$run"
    fi
    if ! grep -qs '"state": "done"' "$run/status.json"; then
        "${launcher[@]}" main.py "$@" "$place"
    fi
}

extract() {
    local kind=$1
    shift
    "${launcher[@]}" main.py task=extract data=beat2 "features=$kind" "out=$out/$kind" "${corpus[@]}" \
        "hydra.run.dir=$out/extract/$kind" "$@"
}

"$python" main.py task=extract data=beat2 stage=check "${corpus[@]}" "hydra.run.dir=$out/check"
extract "$features" "${speech[@]}"
if [ "$acoustic" != none ]; then
    extract "$acoustic" "${sound[@]/#acoustic./features.}"
fi
for part in upper hands lower_trans face; do
    train "$out/tokenizers/$part" "experiment=$tokenizer" "part=$part" "${corpus[@]}"
done
chosen=("features=$features" "features@acoustic=$acoustic" "${speech[@]}" "${sound[@]}")
chosen+=("tokenizers=$out/tokenizers")
stores=("stores.features=$out/$features" "stores.acoustic=$out/$acoustic")
train "$out/a2g" "${model[@]}" "${chosen[@]}" "${stores[@]}" "${corpus[@]}" "${rest[@]}"
if [ -n "$audio" ]; then
    "$python" main.py "${model[@]}" stage=generate "${chosen[@]}" "ckpt=$out/a2g" "audio=$audio" \
        "out=$out/generated" "hydra.run.dir=$out/generate" "${making[@]}"
fi
echo "table, videos and curves: $out/a2g/report.html"
