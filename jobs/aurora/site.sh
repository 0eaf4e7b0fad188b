#!/usr/bin/env bash
# Aurora (ALCF): PBS; two 52-core Intel Xeon Max a node. Its six Intel GPUs are not used: no Horovod
# and TensorFlow 2.18 for them.
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

PPN=${PPN:-12}                    # ranks a node, six a socket
THREADS=${THREADS:-$((96 / PPN))} # cores a rank
RANKS=${RANKS:-$((NODES * PPN))}

# The documentation's list for 12 ranks: cores 0 and 52 belong to the system, and no rank lies
# across both sockets, as `--cpu-bind depth` would place one. Another PPN is bound by depth.
bind=(--depth "$THREADS" --cpu-bind depth)
[ "$PPN-$THREADS" != 12-8 ] ||
  bind=(--cpu-bind list:1-8:9-16:17-24:25-32:33-40:41-48:53-60:61-68:69-76:77-84:85-92:93-100)
LAUNCH=(mpiexec -n "$RANKS" --ppn "$PPN" "${bind[@]}" --env "OMP_NUM_THREADS=$THREADS"
  --env "BNN_RANKS=$RANKS")

# Aurora's own MPICH is on the library path by default; its ranks here use no GPU.
site_env() {
  use_proxy
  export MPIR_CVAR_ENABLE_GPU=0
  use_environment
}
