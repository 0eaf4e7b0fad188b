#!/usr/bin/env bash
# The Python environment for Theta's compute nodes, with Horovod built against Cray MPICH; run once on
# a login node, from the repository's top folder. PYTHON names a Python 3.11 or 3.12.
#
# Reference: Theta ended on 2023-12-31, this could not be run. For Crux it is the same.
set -euo pipefail

venv=${BNN_ENV:-$PWD/.venv}
module swap PrgEnv-intel PrgEnv-gnu # TensorFlow's wheels are built by GCC
module load cray-mpich-abi          # at run time: Cray's MPI under MPICH's library name

"${PYTHON:-python3.11}" -m venv "$venv"
# --no-deps: the lock is complete. Its MPICH is not wanted here, Cray's takes its place.
"$venv/bin/pip" install --no-deps --require-hashes -r requirements.lock
"$venv/bin/pip" uninstall --yes mpich
"$venv/bin/pip" install --no-deps --no-build-isolation --editable .

# CC and cc are Cray's compilers: they find MPI by themselves. dynamic: Python loads what they make.
horovod=$(sed -n 's/^horovod = \["\(.*\)"\]$/\1/p' pyproject.toml)
env CRAYPE_LINK_TYPE=dynamic CC=cc CXX=CC PATH="$venv/bin:$PATH" \
  HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
  HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1 \
  "$venv/bin/pip" install --no-deps --no-build-isolation --no-cache-dir --no-binary horovod "$horovod"

# TensorFlow is built for the compute nodes' processors, so the check runs there.
echo "now: qsub -n 1 -t 10 -q debug-cache-quad -A PROJECT -I"
echo "     jobs/check.sh theta"
