#!/usr/bin/env bash
# Shows a rank only its own GPU: `mpiexec … jobs/polaris/pin_gpu.sh PROGRAM …`. The GPUs are counted
# backwards since Polaris' cores 0-7 lie next to GPU 3, and 24-31 next to GPU 0.
set -euo pipefail
gpus=4
export CUDA_VISIBLE_DEVICES=$((gpus - 1 - PMI_LOCAL_RANK % gpus))
exec "$@"
