#!/usr/bin/env bash
# All five tasks on synthetic corpora with small or random networks, on two CPU cores, and one page of what they made.
# usage: recipes/tour/run.sh OUT_DIR (a folder that is not there yet); no data, no weights, no network
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -ne 1 ]; then
    echo "usage: recipes/tour/run.sh OUT_DIR" >&2
    exit 2
fi
out=$1
python=${PYTHON:-.venv/bin/python}
export PYTHON=$python OMP_NUM_THREADS=1
mkdir -p "$out/log"
run() { # name of the run, settings ...
    local name=$1
    shift
    echo "== $name: python main.py$(printf ' %q' "$@")"
    "$python" main.py "$@" "hydra.run.dir=$out/runs/$name" logger=none
}

echo "All five tasks on synthetic corpora: 3 to 4.5 minutes on 2 cores; log of each run: $out/runs/NAME/rank0.log"
# The gestures take as long as all the rest: they have a core of their own.
echo "== gestures: recipes/beat2_a2g/run.sh sample $out/gestures (beside the others; log: $out/log/gestures.txt)"
recipes/beat2_a2g/run.sh sample "$out/gestures" logger=none >"$out/log/gestures.txt" 2>&1 &
gestures=$!
trap 'kill $gestures 2>/dev/null || true' EXIT
run convert experiment=quickstart "data.root=$out/VoiceAssistant-400K" "out=$out/voiceassistant-mimi"
run extract experiment=encodec_dataset "data.root=$out/tones" "out=$out/tones-encodec"
run tokenizer experiment=librispeech_tokenizer data.source=sample "data.root=$out/LibriSpeech" data.subsets=null \
    'data.split_fractions={train: 0.75, validation: 0.25}' trainer.max_steps=150 trainer.val_check_interval=50 \
    fit.warmup_steps=30 trainer.log_every_n_steps=10
run features task=extract data=podcastfillers features=logmel data.source=sample "data.root=$out/PodcastFillers" \
    "out=$out/podcastfillers-logmel"
for shift in 2 5; do
    run "laughter/shift$shift" experiment=laughter "shift=$shift" "data.root=$out/PodcastFillers" \
        "store=$out/podcastfillers-logmel"
done
echo "== gestures: waiting for their end, about 2 minutes on 2 cores; log: $out/log/gestures.txt"
if ! wait $gestures; then
    tail -20 "$out/log/gestures.txt" >&2
    exit 1
fi
trap - EXIT
"$python" recipes/tour/page.py "$out/tour.html" \
    "Convert: SNAC to Mimi tokens=$out/runs/convert/report.html" \
    "Extract: recordings to an audited data set=$out/runs/extract/report.html" \
    "Train a speech tokenizer=$out/runs/tokenizer/report.html" \
    "Features of podcasts=$out/runs/features/report.html" \
    "Laughter, 0.16 s ahead=$out/runs/laughter/shift2/report.html" \
    "Laughter, 0.4 s ahead=$out/runs/laughter/shift5/report.html" \
    "Gestures: what the data set holds=$out/gestures/check/report.html" \
    "Gestures from speech=$out/gestures/a2g/report.html"
echo "look at: $out/tour.html (videos of gestures: $out/gestures/generated)"
