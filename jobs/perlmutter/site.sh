#!/usr/bin/env bash
# Perlmutter (NERSC): Slurm. A CPU node has two 64-core AMD EPYC 7763; a GPU node has one, and four
# NVIDIA A100. Each core has two hardware threads, which Slurm counts as CPUs.
# This folder's scripts and bnnlib.launch.sites read it, from the repository's top folder.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
SYSTEM=perlmutter
# Queues, which are Slurm's QOS here (docs.nersc.gov/jobs/policy): the first that fits is taken. There
# are 1,792 GPU nodes. preempt ends jobs without warning after their second hour; shared takes half a
# node at most, so give it the job's shape, too; NERSC allows no chain of jobs in debug.
QUEUES='
regular   1 3072  48  chain
preempt   1  128  48  chain
shared    1    1  48  chain
debug     1    8 0.5  alone'

# What fills a node, where neither you nor a script's directives say.
case ${GPUS:-${SLURM_GPUS_PER_NODE:-0}} in
0) NODE_PPN=32 NODE_THREADS=256 ;;
*) NODE_THREADS=128 ;; # one rank a GPU
esac
QOS=${QOS:-${QUEUE:-}}
source jobs/slurm/site.sh
# In a job, squeue tells NERSC's own names, such as gpu_regular, regular_1 and a partition: no job may
# ask for those.
QUEUE="" QOS=${QOS#gpu_} QOS=${QOS%_[0-9]*}
# Nor may a job of debug go back into the queue under its own id, which is a chain, too.
[ "$QOS" != debug ] || requeue() { return 1; }

LAUNCH+=(--cpu-bind=cores)

# choose_queue SCRIPT: sets QOS for its job, or refuses it.
choose_queue() {
  local walltime
  need_project "$1" "sbatch --account=NAME" || return 1
  # Slurm's 2-00:00:00 and 30:00, as hours, minutes and seconds.
  walltime=$(awk -F '[-:]' '{
    seconds = $NF + 60 * $(NF - 1) + 3600 * (NF > 2 ? $(NF - 2) : 0) + 86400 * (NF > 3 ? $(NF - 3) : 0)
    printf "%d:%02d:%02d", seconds / 3600, seconds % 3600 / 60, seconds % 60
  }' <<<"${WALLTIME:-$(sed -n 's/^#SBATCH --time=//p' "$1")}")
  QOS=$(queue_for "$NODES" "$walltime" "$QOS")
}

site_env() {
  use_cray_mpich load cray-mpich-abi
  # NCCL moves what lies on GPUs; with 1 and no GPU transport linked, MPI_Init aborts.
  export MPICH_GPU_SUPPORT_ENABLED=0
  # Slurm's first rank gets the cores next to GPU 3.
  [ "$gpus" -eq 0 ] || export CUDA_VISIBLE_DEVICES=3,2,1,0
  use_environment
}
