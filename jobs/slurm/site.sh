#!/usr/bin/env bash
# Any cluster with Slurm.
# This folder's scripts and bnnlib.launch.sites read it, from the repository's top folder.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
source jobs/queue.sh

NODES=${SLURM_JOB_NUM_NODES:-${NODES:-1}}
PPN=${PPN:-${SLURM_NTASKS_PER_NODE:-2}}         # ranks a node
THREADS=${THREADS:-${SLURM_CPUS_PER_TASK:-1}}   # cores a rank
RANKS=${RANKS:-$((NODES * PPN))}

# pmi2: how srun's ranks find each other with MPICH, Intel MPI and Cray MPICH (`srun --mpi=list`).
LAUNCH=(srun -n "$RANKS" --mpi=pmi2 --ntasks-per-node="$PPN" --cpus-per-task="$THREADS"
  --kill-on-bad-exit=1)

# In a job: when it will be killed, and its walltime for a successor.
if [ -n "${SLURM_JOB_ID:-}" ]; then
  read -r end WALLTIME < <(squeue -h -j "$SLURM_JOB_ID" -o "%e %l")
  ENDS=$(date -d "$end" +%s 2>/dev/null) || unset ENDS WALLTIME # a partition without a limit
fi

# submit SCRIPT: queues it and prints the job's id. Directives in the script hold where no variable
# says otherwise.
submit() {
  local options=(--parsable --nodes="$NODES" --ntasks-per-node="$PPN" --cpus-per-task="$THREADS")
  pass_on
  options+=(--export=ALL)
  [ -z "${WALLTIME:-}" ] || options+=(--time="$WALLTIME")
  [ -z "${AFTER:-}" ] || options+=(--dependency="afterok:$AFTER" --kill-on-invalid-dep=yes)
  [ -z "${PROJECT:-}" ] || options+=(--account="$PROJECT")
  [ -z "${QUEUE:-}" ] || options+=(--partition="$QUEUE")
  sbatch "${options[@]}" "$1"
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

site_env() {
  use_environment
}
