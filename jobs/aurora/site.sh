#!/usr/bin/env bash
# Aurora (ALCF): PBS; two 52-core Intel Xeon Max and six Intel GPUs a node. Ranks run on the CPUs, since
# the locked TensorFlow 2.18 cannot use these GPUs. jobs/README.md tells the second way, by the site's
# own TensorFlow 2.15 and GPUS=12.
# This folder's scripts and bnnlib.launch.sites read it, from the repository's top folder.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
SYSTEM=aurora
# Queues (docs.alcf.anl.gov/aurora/running-jobs-aurora, August 2026): the first that fits is taken.
# prod sends a job on by its size; the debug queues take one job a user, so that no job there can
# queue its successor. Between 17 and 255 nodes there is only debug-scaling.
QUEUES='
prod            256  512   6  chain
prod            513 1024  12  chain
prod           1025 1919  18  chain
prod           1920 7300  24  chain
capacity          1   16 168  chain
debug             1    2   1  alone
debug-scaling     2  256   1  alone'
source jobs/pbs.sh

# Cores 0 and 52 belong to the system, and 48 to 51 are left to what runs beside the ranks, such as
# Copper, whose default they are (docs.alcf.anl.gov/aurora/data-management/copper). Each socket gives
# as many: 1 to 47 of the first, 53 to 99 of the second.
socket=47
GPUS=${GPUS:-0}   # of a node: 12 are the halves of its six, each a device
PPN=${PPN:-12}    # ranks a node, half of them on each socket
THREADS=${THREADS:-$((socket * 2 / (PPN + PPN % 2)))} # cores a rank
RANKS=${RANKS:-$((NODES * PPN))}

# bind_list: each rank's cores, on one socket; `--cpu-bind depth` would lay a rank across both.
bind_list() {
  local rank list=list
  for ((rank = 0; rank < PPN; rank++)); do
    list+=:$(cores_of $rank "$PPN") || return 1
  done
  echo "$list"
}

# cores_of SLOT PLACES: the cores of one of a node's places for a rank.
cores_of() {
  local first half=$((($2 + 1) / 2))
  if [ $((half * THREADS)) -gt $socket ]; then
    echo "THREADS=$THREADS: $half ranks a socket share its $socket cores" >&2
    return 1
  fi
  first=$((1 + ($1 < half ? 0 : 52) + $1 % half * THREADS))
  [ "$THREADS" -eq 1 ] && echo "$first" || echo "$first-$((first + THREADS - 1))"
}
bind=$(bind_list)
LAUNCH=(mpiexec -n "$RANKS" --ppn "$PPN" --cpu-bind "$bind" --env "OMP_NUM_THREADS=$THREADS"
  --env "BNN_RANKS=$RANKS" --env "BNN_GPUS=$((GPUS > 0))" "${INSIDE[@]}")

# Aurora's own MPICH is on the library path by default. It moves nothing that lies on a GPU.
site_env() {
  use_proxy
  export MPIR_CVAR_ENABLE_GPU=0
  # Beyond 16 nodes the network's queues overflow (docs.alcf.anl.gov/aurora/data-science/frameworks/
  # tensorflow).
  [ "$NODES" -le 16 ] ||
    use_fabric FI_CXI_DEFAULT_CQ_SIZE=131072 FI_CXI_OFLOW_BUF_SIZE=8388608 FI_CXI_CQ_FILL_PERCENT=20
  use_environment
  [ -z "${BNN_COPPER:-}" ] || use_copper
}

# Copper, Aurora's cache that reads each file once for all nodes, where BNN_COPPER is set
# (docs.alcf.anl.gov/aurora/data-management/copper). It serves what is found below its mount, and its
# service lies on cores 48 to 51.
use_copper() {
  local packages mount=/tmp/$USER/copper_mount
  packages=$(realpath "$BNN_ENV"/lib/python3*/site-packages)
  set +u
  module load copper
  set -u
  copper=(-d "$PWD/runs/copper" -v "$mount")
  launch_copper.sh "${copper[@]}"
  trap 'stop_copper.sh "${copper[@]}" || true' EXIT
  export PYTHONPATH=$mount$packages${PYTHONPATH:+:$PYTHONPATH}
}
