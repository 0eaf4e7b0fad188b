#!/usr/bin/env bash
# Polaris (ALCF): PBS; one 32-core AMD EPYC 7543P and four NVIDIA A100 a node.
# This folder's scripts and bnnlib.launch.sites read it, from the repository's top folder.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
SYSTEM=polaris
# Queues (docs.alcf.anl.gov/polaris/running-jobs): the first that fits is taken. prod sends a job on
# by its size; preemptable ends jobs without warning, so its runs keep checkpoints; capacity takes two
# jobs a user; the debug queues one, so that no job there can queue its successor.
QUEUES='
prod           10  24   3  chain
prod           25  99   6  chain
prod          100 496  24  chain
preemptable     1  10  72  chain
capacity        1   4 168  chain
debug           1   2   1  alone
debug-scaling   1  10   1  alone'
source jobs/pbs.sh

PPN=${PPN:-4}                     # ranks a node: one a GPU
THREADS=${THREADS:-$((32 / PPN))} # cores a rank
RANKS=${RANKS:-$((NODES * PPN))}

# --depth and --cpu-bind: each rank on its own THREADS neighbouring cores. pin_gpu.sh gives it the
# GPU next to them.
LAUNCH=(mpiexec -n "$RANKS" --ppn "$PPN" --depth "$THREADS" --cpu-bind depth
  --env "OMP_NUM_THREADS=$THREADS" --env "BNN_RANKS=$RANKS" jobs/polaris/pin_gpu.sh)

site_env() {
  use_proxy
  use_cray_mpich load cray-mpich-abi
  # NCCL moves what lies on GPUs; with 1 and no GPU transport linked, MPI_Init aborts.
  export MPICH_GPU_SUPPORT_ENABLED=0
  use_environment
}
