#!/usr/bin/env bash
# Shows a rank only its own GPU: `mpiexec … jobs/polaris/pin_gpu.sh PROGRAM …`. The GPUs are counted
# backwards since Polaris' cores 0-7 lie next to GPU 3, and 24-31 next to GPU 0. BNN_SLOTS, as 2,3,
# is where on the node the ranks of a packed run are.
set -euo pipefail
gpus=4
IFS=, read -ra slots <<<"${BNN_SLOTS:-}"
slot=${slots[PMI_LOCAL_RANK]:-$PMI_LOCAL_RANK}
export CUDA_VISIBLE_DEVICES=$((gpus - 1 - slot % gpus))
exec "$@"
