#!/usr/bin/env bash
# A sweep as an array of a Slurm cluster, a job for each run with one GPU; needs the extra [launch] where it is started.
# usage: recipes/cluster/sweep.sh PARTITION task=laughter data.root=DIR loss=bce,focal shift=1,2,5
# The same command with hydra.sweep.dir=<its folder> runs what has failed or is missing. GPUS (1), HOURS (4), JOBS (16)
# and CPUS (8) from the environment.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -lt 2 ]; then
    echo "usage: recipes/cluster/sweep.sh PARTITION task=... key=value,value ..." >&2
    exit 2
fi
partition=$1
shift
exec "${PYTHON:-.venv/bin/python}" main.py -m "$@" hydra/launcher=submitit_slurm \
    "hydra.launcher.partition=$partition" "hydra.launcher.gpus_per_node=${GPUS:-1}" \
    "hydra.launcher.cpus_per_task=${CPUS:-8}" "hydra.launcher.timeout_min=$((60 * ${HOURS:-4}))" \
    "hydra.launcher.array_parallelism=${JOBS:-16}"
