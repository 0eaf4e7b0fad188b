#!/usr/bin/env bash
# PBS Professional as ALCF runs it, for crux, polaris and aurora.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
source jobs/queue.sh

# In a job: its nodes, and when it will be killed (PBS tells the walltime only if asked). ENDS is set for
# a run of a packed job, which has a part of its nodes.
if [ -n "${PBS_NODEFILE:-}" ] && [ -z "${ENDS:-}" ]; then
  NODES=$(sort -u "$PBS_NODEFILE" | wc -l)
  WALLTIME=$(qstat -f "$PBS_JOBID" | sed -n 's/^ *Resource_List.walltime = //p')
  IFS=: read -r hours minutes seconds <<<"$WALLTIME"
  ENDS=$(($(date +%s) + 10#$hours * 3600 + 10#$minutes * 60 + 10#$seconds))
fi
NODES=${NODES:-1}
PROJECT=${PROJECT:-${PBS_ACCOUNT:-}}

# For copies of the environment (BNN_PACKED), unless the site has disks: the nodes' memory.
export BNN_NODE_DISK=${BNN_NODE_DISK:-/tmp}

# on_nodes WORDS: runs them once a node.
on_nodes() {
  "${LAUNCH[0]}" -n "$NODES" --ppn 1 --depth "$((PPN * THREADS))" --cpu-bind depth "$@"
}

# submit SCRIPT: queues it and prints the job's id: in the job's own queue, where a job queues another.
# A directive of the script holds where no variable says otherwise.
submit() {
  local IFS=, options queue walltime
  need_project "$1" "qsub -A NAME" || return 1
  walltime=${WALLTIME:-$(sed -n 's/^#PBS -l walltime=//p' "$1")}
  queue=$(queue_for "$NODES" "$walltime" "${QUEUE:-${PBS_O_QUEUE:-}}") || return 1
  pass_on
  options=(-l "select=$NODES:system=$SYSTEM" -l "walltime=$walltime" -A "$PROJECT" -q "$queue"
    -v "${PASSED[*]}")
  [ -z "${AFTER:-}" ] || options+=(-W "depend=afterok:$AFTER")
  qsub "${options[@]}" "$1"
}

# job_state ID: prints queued (or running), gone, or unknown where the queue cannot be asked.
job_state() {
  local told
  if told=$(qstat "$1" 2>&1); then
    echo queued
  elif [[ $told == *"Unknown Job Id"* || $told == *"Job has finished"* ]]; then
    echo gone
  else
    echo unknown
  fi
}

# Compute nodes of ALCF reach the network by its proxy alone.
use_proxy() {
  export http_proxy=http://proxy.alcf.anl.gov:3128 https_proxy=http://proxy.alcf.anl.gov:3128
}

# on_slice NODES SLOTS PLACES: has LAUNCH start its ranks on some of this job's nodes; NODES lists their
# numbers, such as 0,3. SLOTS lists the ranks' places on a node that other runs share, of PLACES that
# it has, and is empty for whole nodes.
on_slice() {
  local slot i cores=list words=(--hostfile "$RUN/hosts")
  sort -u "$PBS_NODEFILE" | awk -v chosen=",$1," 'index(chosen, "," NR - 1 ",")' >"$RUN/hosts"
  for ((i = 3; i < ${#LAUNCH[@]}; i++)); do
    case "${2:+shared} ${LAUNCH[i]}" in
      "shared --depth" | "shared --cpu-bind") i=$((i + 1)) ;; # of a node's first places
      *) words+=("${LAUNCH[i]}") ;;
    esac
  done
  for slot in ${2//,/ }; do
    cores+=:$(cores_of "$slot" "$3") || return 1
  done
  LAUNCH=("${LAUNCH[@]:0:3}" ${2:+--cpu-bind "$cores"} "${words[@]}")
}

# cores_of SLOT PLACES: the cores of one of a node's places for a rank.
cores_of() {
  local first=$(($1 * THREADS))
  [ "$THREADS" -eq 1 ] && echo "$first" || echo "$first-$((first + THREADS - 1))"
}
