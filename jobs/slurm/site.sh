#!/usr/bin/env bash
# Any cluster with Slurm.
# This folder's scripts and bnnlib.launch.sites read it, from the repository's top folder.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
source jobs/queue.sh

# GPUs of a node, as 4 or with their type as a100:4: those that the job was asked for.
GPUS=${GPUS:-${SLURM_GPUS_PER_NODE:-0}}
gpus=${GPUS##*:}

# What the user or the script's directives said of a job's shape; nothing else is passed to sbatch.
asked=()
[ -z "${SLURM_JOB_NUM_NODES:-${NODES:-}}" ] || asked+=(--nodes="${SLURM_JOB_NUM_NODES:-$NODES}")
[ -z "${PPN:-${SLURM_NTASKS_PER_NODE:-}}" ] ||
  asked+=(--ntasks-per-node="${PPN:-$SLURM_NTASKS_PER_NODE}")
[ -z "${THREADS:-${SLURM_CPUS_PER_TASK:-}}" ] ||
  asked+=(--cpus-per-task="${THREADS:-$SLURM_CPUS_PER_TASK}")
[ "$gpus" -eq 0 ] || asked+=(--gpus-per-node="$GPUS")

NODES=${SLURM_JOB_NUM_NODES:-${NODES:-1}}
# Ranks a node: one a GPU.
PPN=${PPN:-${SLURM_NTASKS_PER_NODE:-$((gpus > 0 ? gpus : ${NODE_PPN:-2}))}}
# CPUs a rank, as Slurm counts them: on some sites each core is two.
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-$((${NODE_THREADS:-PPN} / PPN))}}
RANKS=${RANKS:-$((NODES * PPN))}

# SRUN_MPI: how srun's ranks find each other, where the site's own default does not do for the MPI
# of BNN_ENV; `srun --mpi=list` shows what there is. The package index's MPICH needs pmi2.
LAUNCH=(srun -n "$RANKS" ${SRUN_MPI:+--mpi="$SRUN_MPI"} --ntasks-per-node="$PPN"
  --cpus-per-task="$THREADS" --kill-on-bad-exit=1
  --export="ALL,BNN_RANKS=$RANKS,BNN_GPUS=$((gpus > 0))")
# A rank takes the GPU of its place on the node, so it must see all of them.
[ "$gpus" -eq 0 ] || LAUNCH+=(--gpu-bind=none)
LAUNCH+=("${INSIDE[@]}")

# In a job: when it will be killed, and what a successor must have of it. `(null)` is Slurm's word
# for what a job does not have. ENDS is set for a run of a packed job.
if [ -n "${SLURM_JOB_ID:-}" ] && [ -z "${ENDS:-}" ]; then
  IFS="|" read -r end WALLTIME account qos partition constraint \
    < <(squeue -h -j "$SLURM_JOB_ID" -o "%e|%l|%a|%q|%P|%f")
  ENDS=${SLURM_JOB_END_TIME:-$(date -d "$end" +%s 2>/dev/null || true)}
  [ -n "$ENDS" ] || unset ENDS WALLTIME # a partition without a limit
  PROJECT=${PROJECT:-${account#(null)}}
  QUEUE=${QUEUE:-${partition#(null)}}
  QOS=${QOS:-${qos#(null)}}
  CONSTRAINT=${CONSTRAINT:-${constraint#(null)}}
  RESUBMITS=$((RESUBMITS - ${SLURM_RESTART_COUNT:-0}))
fi

# on_nodes WORDS: runs them once a node.
on_nodes() {
  "${LAUNCH[0]}" -n "$NODES" --ntasks-per-node=1 "$@"
}

# submit SCRIPT: queues it and prints the job's id. Directives in the script hold where no variable
# says otherwise.
submit() {
  if declare -F choose_queue >/dev/null; then
    choose_queue "$1" || return 1
  fi
  local options=(--parsable --export=ALL "${asked[@]}")
  # The successor of an array's job is an array of one: the same repeat of the same run.
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    options+=(--array="$SLURM_ARRAY_TASK_ID")
    RUN=${RUN%"-s$SLURM_ARRAY_TASK_ID"}
  fi
  pass_on
  [ -z "${WALLTIME:-}" ] || options+=(--time="$WALLTIME")
  [ -z "${AFTER:-}" ] || options+=(--dependency="afterok:$AFTER" --kill-on-invalid-dep=yes)
  [ -z "${PROJECT:-}" ] || options+=(--account="$PROJECT")
  [ -z "${QUEUE:-}" ] || options+=(--partition="$QUEUE")
  [ -z "${QOS:-}" ] || options+=(--qos="$QOS")
  [ -z "${CONSTRAINT:-}" ] || options+=(--constraint="$CONSTRAINT")
  sbatch "${options[@]}" "$1"
}

# Puts this job back into the queue, as it was submitted and under its id, so that jobs which wait
# for it go on waiting. Fails where the site or the job does not allow it.
requeue() {
  [[ $(scontrol show job "$SLURM_JOB_ID") == *Requeue=1* ]] && scontrol requeue "$SLURM_JOB_ID"
}

# job_state ID: prints queued (or running), gone, or unknown where the queue cannot be asked.
job_state() {
  local told
  if told=$(squeue -h -j "$1" 2>&1); then
    [ -n "$told" ] && echo queued || echo gone
  elif [[ $told == *"Invalid job id"* ]]; then # Slurm soon forgets a job that has ended
    echo gone
  else
    echo unknown
  fi
}

# on_slice NODES SLOTS PLACES: has LAUNCH start its ranks on some of this job's nodes; NODES lists their
# numbers, such as 0,3. Slurm itself gives a step cores of its own: as many as it asks for, by --exact,
# and --mem=0 leaves the rest of the memory to the others.
on_slice() {
  local hosts options=(--exact --mem=0)
  hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST" |
    awk -v chosen=",$1," 'index(chosen, "," NR - 1 ",")' | paste -sd ,)
  [ "$gpus" -eq 0 ] || options+=(--gpus-per-node="$PPN") # else the first step takes all of the node's
  LAUNCH=("${LAUNCH[@]:0:3}" "${options[@]}" --nodelist="$hosts" "${LAUNCH[@]:3}")
}

site_env() {
  use_environment
}
