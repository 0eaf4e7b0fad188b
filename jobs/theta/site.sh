#!/usr/bin/env bash
# Theta (ALCF, ended on 2023-12-31; kept as the study's reference): Cobalt and aprun; one 64-core
# Intel KNL a node, four hardware threads a core.
# This folder's scripts and bnnlib.launch.sites read it, from the repository's top folder.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
source jobs/queue.sh

PROJECT=${PROJECT:-${COBALT_PROJECT:-}}

# ALCF documents COBALT_JOBSIZE; the original study's scripts read COBALT_PARTSIZE.
NODES=${COBALT_JOBSIZE:-${COBALT_PARTSIZE:-${NODES:-1}}}
GPUS=0 # it has none
PPN=${PPN:-1}                      # ranks a node
THREADS=${THREADS:-$((128 / PPN))} # hardware threads a rank, two of the four of each core
RANKS=${RANKS:-$((NODES * PPN))}

# -cc depth and -d: each rank on its own THREADS neighbouring hardware threads, -j 2 of a core.
# -b: the program is on the file system of all nodes, do not copy it. aprun tells its processes
# their rank and not how many they are, hence BNN_RANKS.
LAUNCH=(aprun -n "$RANKS" -N "$PPN" -cc depth -d "$THREADS" -j 2
  -e "OMP_NUM_THREADS=$THREADS" -e "BNN_RANKS=$RANKS" -e "BNN_RANKS_PER_NODE=$PPN" -b "${INSIDE[@]}")

# In a job: when it will be killed, and its walltime for a successor.
if [ -n "${COBALT_ENDTIME:-}" ]; then
  ENDS=$COBALT_ENDTIME
  WALLTIME=$(date -u -d "@$((COBALT_ENDTIME - COBALT_STARTTIME))" +%H:%M:%S)
fi

# on_nodes WORDS: runs them once a node.
on_nodes() {
  aprun -n "$NODES" -N 1 -b "$@"
}

# Cobalt takes values in a list alone, with colons between.
values() {
  local name list=""
  pass_on
  for name in "${PASSED[@]}"; do
    if [[ ${!name} == *:* ]]; then
      echo "$name=${!name}: Cobalt cannot pass on a colon; choose a name without one" >&2
      return 1
    fi
    list+=":$name=${!name}"
  done
  echo "${list#:}"
}

# submit SCRIPT: queues it and prints the job's id, Cobalt's last line. Directives in the script
# hold where no variable says otherwise.
submit() {
  local list options
  need_project "$1" "--env PROJECT=NAME" || return 1
  list=$(values) || return 1
  options=(--mode script -n "$NODES" -A "$PROJECT" --env "$list")
  [ -z "${WALLTIME:-}" ] || options+=(-t "$WALLTIME")
  [ -z "${AFTER:-}" ] || options+=(--dependencies "$AFTER")
  [ -z "${QUEUE:-}" ] || options+=(-q "$QUEUE")
  qsub "${options[@]}" "$1" | tail -n 1
}

# job_state ID: prints queued (or running), gone, or unknown where the queue cannot be asked. The
# whole list is asked for, since Cobalt's code for a job that is gone may also be an error's.
job_state() {
  local told
  if ! told=$(qstat 2>/dev/null); then
    echo unknown
  elif cut -d " " -f 1 <<<"$told" | grep -qx "$1"; then
    echo queued
  else
    echo gone
  fi
}

# on_slice: aprun itself takes nodes of this job that no other aprun has, whole ones.
SHARES_NODES=no
on_slice() { :; }

site_env() {
  use_cray_mpich swap cray-mpich cray-mpich-abi
  use_environment
}
