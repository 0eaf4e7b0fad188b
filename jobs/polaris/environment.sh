#!/bin/bash -l
#PBS -N bnn-environment
#PBS -l select=1:system=polaris
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:eagle
#PBS -q debug
#PBS -j oe
#PBS -k doe
# The Python environment for Polaris, .venv: the locked packages, TensorFlow with CUDA from its own
# wheels, and Horovod built with NCCL; then the four ranks of a node are checked. In a job, since login
# nodes limit memory and processes, and have no GPU. Once, from the repository's top folder:
#
#   qsub -A PROJECT jobs/polaris/environment.sh
#
# PYTHON=/path/to/python3.12 names another Python, VENV=folder another folder (BNN_ENV=folder in the
# jobs), CUDA_MODULE another CUDA 12. Run again, it does only what has changed.
#
# Not run on Polaris, nor with CUDA 12 or a GPU; jobs/README.md tells what was tried of the build.
# cudatoolkit-standalone and cray-python were read in others' scripts for Polaris, of 2025.
set -euo pipefail
cd "$PBS_O_WORKDIR"
source jobs/polaris/site.sh
use_proxy
set +u # modules read variables that are not set
module use /soft/modulefiles
module load PrgEnv-gnu "${CUDA_MODULE:-cudatoolkit-standalone/12.5.0}" cray-python
set -u

CUDA=1 jobs/local/environment.sh
BNN_ENV=${VENV:-$PWD/.venv} jobs/check.sh polaris
