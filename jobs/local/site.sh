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

# on_slice NODES SLOTS PLACES: has LAUNCH start its ranks on the cores of some of the machine's PLACES
# for a rank, which SLOTS lists, such as 0,3; it is empty for all of them.
on_slice() {
  local part slot each all=() cores=()
  [ "$GPUS" -eq 0 ] || LAUNCH+=(env ${2:+"CUDA_VISIBLE_DEVICES=$2"})
  if [ -z "$2" ] || ! command -v taskset >/dev/null; then return 0; fi
  part=$(taskset -cp $$)
  for part in $(tr , " " <<<"${part##*: }"); do
    mapfile -t -O "${#all[@]}" all < <(seq "${part%-*}" "${part#*-}")
  done
  each=$((${#all[@]} / $3))
  [ "$each" -gt 0 ] || return 0 # more places than cores
  for slot in ${2//,/ }; do cores+=("${all[@]:slot * each:each}"); done
  LAUNCH+=(taskset -c "$(IFS=,; echo "${cores[*]}")")
}

site_env() {
  export PATH=$BNN_ENV/bin:$PATH
  use_packed
}
