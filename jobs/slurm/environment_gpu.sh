#!/usr/bin/env bash
#SBATCH --job-name=bnn-environment
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=2
#SBATCH --time=01:00:00
# The Python environment for a cluster's GPUs, .venv: the locked packages, TensorFlow with CUDA from its
# own wheels, and Horovod built with NCCL; then two ranks are checked. In a job, since login nodes have
# no GPU. Once, from the repository's top folder:
#
#   sbatch jobs/slurm/environment_gpu.sh
#
# It needs g++, a Python 3.11 or 3.12 and nvcc of CUDA 12: put the modules that bring them (such as
# `module load cuda/12 python/3.11`) and the site's proxy into jobs/slurm/own.sh. SRUN_MPI as in
# site.sh, for the check and for every job.
# PYTHON=/path/to/python3.12 names another Python, VENV=folder another folder (BNN_ENV=folder in the
# jobs). Run again, it does only what has changed. Not run: there was no GPU.
set -euo pipefail
source jobs/slurm/site.sh
use_own jobs/slurm

CUDA=1 jobs/local/environment.sh
BNN_ENV=${VENV:-$PWD/.venv} jobs/check.sh slurm
