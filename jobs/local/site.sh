#!/usr/bin/env bash
# This machine alone: no queue, a job runs where it is submitted.
# This folder's scripts and bnnlib.launch.sites read it, from the repository's top folder.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
source jobs/queue.sh

NODES=1
GPUS=${GPUS:-0}
RANKS=${RANKS:-$((GPUS > 0 ? GPUS : 2))} # one a GPU
[ "$GPUS" -eq 0 ] || export BNN_GPUS=1
PPN=$RANKS
THREADS=0 # cores a rank: the notebook shares them among the ranks

LAUNCH=(mpiexec -n "$RANKS" "${INSIDE[@]}")
# Horovod's launcher instead, over Gloo: LAUNCHER=horovodrun
[ "${LAUNCHER:-mpiexec}" = mpiexec ] ||
  LAUNCH=(horovodrun -n "$RANKS" -H "localhost:$RANKS" "${INSIDE[@]}")

# submit SCRIPT: runs it to its end; what it prints goes to standard error, and there is no id.
submit() {
  export RUN PARAMS MODEL RUNS RANKS PPN THREADS LAUNCHER
  bash "$1" >&2
  echo local
}

job_state() { echo gone; } # it has run to its end

# on_nodes WORDS: runs them once a node.
on_nodes() { "$@"; }

site_env() {
  export PATH=$BNN_ENV/bin:$PATH
  use_packed
}
