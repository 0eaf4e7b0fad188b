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
# The nodes' own disks (docs.alcf.anl.gov/polaris/containers).
export BNN_NODE_DISK=${BNN_NODE_DISK:-/local/scratch}
source jobs/pbs.sh

GPUS=${GPUS:-4}                   # of a node; 0: ranks on its CPU
PPN=${PPN:-4}                     # ranks a node: one a GPU
THREADS=${THREADS:-$((32 / PPN))} # cores a rank
RANKS=${RANKS:-$((NODES * PPN))}

# --depth and --cpu-bind: each rank on its own THREADS neighbouring cores. pin_gpu.sh gives it the
# GPU next to them.
LAUNCH=(mpiexec -n "$RANKS" --ppn "$PPN" --depth "$THREADS" --cpu-bind depth
  --env "OMP_NUM_THREADS=$THREADS" --env "BNN_RANKS=$RANKS" --env "BNN_GPUS=$((GPUS > 0))")
[ "$GPUS" -eq 0 ] || LAUNCH+=(jobs/polaris/pin_gpu.sh)
LAUNCH+=("${INSIDE[@]}")

site_env() {
  use_proxy
  use_cray_mpich load cray-mpich-abi
  # NCCL moves what lies on GPUs; with 1 and no GPU transport linked, MPI_Init aborts.
  export MPICH_GPU_SUPPORT_ENABLED=0
  use_nccl
  use_environment
}

# NCCL over the site's network, by its plugin for libfabric (docs.alcf.anl.gov/polaris/
# applications-and-libraries/libraries/nccl, August 2026). Where a run hangs with it, as the page says
# of some programs, BNN_FABRIC=0 leaves NCCL its sockets.
use_nccl() {
  local plugin=${NCCL_PLUGIN:-/soft/libraries/aws-ofi-nccl/v1.9.1-aws/lib}
  if [ "$GPUS" -eq 0 ] || [ "${BNN_FABRIC:-1}" = 0 ]; then return 0; fi
  if [ ! -d "$plugin" ]; then
    echo "$plugin: no such folder, and NCCL's plugin is expected there: NCCL_PLUGIN=FOLDER names" \
      "another, BNN_FABRIC=0 does without" >&2
    exit 1
  fi
  export LD_LIBRARY_PATH=/soft/libraries/hwloc/lib:$plugin:${LD_LIBRARY_PATH:-}
  use_fabric "NCCL_NET=AWS Libfabric" NCCL_NET_GDR_LEVEL=PHB NCCL_CROSS_NIC=1 NCCL_COLLNET_ENABLE=1 \
    FI_CXI_DISABLE_HOST_REGISTER=1 FI_MR_CACHE_MONITOR=userfaultfd FI_CXI_DEFAULT_CQ_SIZE=131072
}
