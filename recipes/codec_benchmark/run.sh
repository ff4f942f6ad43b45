#!/usr/bin/env bash
# The quality report of several codecs on the same recordings, and the page that compares them.
#   recipes/codec_benchmark/run.sh                                  synthetic speech, random weights: shows the pipeline
#   recipes/codec_benchmark/run.sh LIBRISPEECH_DIR [key=value ...]  test-clean, published weights
set -euo pipefail
cd "$(dirname "$0")/../.."
settings=(data.source=sample data.root=outputs/demo/LibriSpeech "data.subsets=[test-clean]" codec.weights=random)
settings+=(test.prefix_files=2 test.stability_files=2 test.clips=2 test.speed_repeats=3 test.speed_seconds=2)
if [[ $# -gt 0 && $1 != *=* ]]; then
  settings=("data.root=$1" "data.subsets=[test-clean]")
  shift
fi
.venv/bin/python main.py -m experiment=codec_benchmark data.splits=subset codec=encodec,mimi,snac "${settings[@]}" "$@"
