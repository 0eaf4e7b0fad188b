#!/usr/bin/env bash
# Crux (ALCF): PBS; two 64-core AMD EPYC 7742 a node, no GPU. Theta's nearest heir.
# This folder's scripts and bnnlib.launch.sites read it, from the repository's top folder.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
SYSTEM=crux
# Queues (docs.alcf.anl.gov/crux/queueing-and-running-jobs): the first that fits is taken. preemptable
# ends jobs without warning, so its runs keep checkpoints; debug runs one job a user.
QUEUES='
workq-route     1 184  24  chain
preemptable     1  10  72  chain
debug           1   8   2  alone'
source jobs/pbs.sh

GPUS=0 # it has none
PPN=${PPN:-32}                      # ranks a node
THREADS=${THREADS:-$((128 / PPN))} # cores a rank
RANKS=${RANKS:-$((NODES * PPN))}

# --depth and --cpu-bind: each rank on its own THREADS neighbouring cores.
LAUNCH=(mpiexec -n "$RANKS" --ppn "$PPN" --depth "$THREADS" --cpu-bind depth
  --env "OMP_NUM_THREADS=$THREADS" --env "BNN_RANKS=$RANKS" "${INSIDE[@]}")

site_env() {
  use_proxy
  use_cray_mpich load cray-mpich-abi
  use_environment
}
