#!/bin/bash -l
#SBATCH --job-name=bnn-environment
#SBATCH --constraint=gpu
#SBATCH --qos=regular
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=01:00:00
# The Python environment for Perlmutter's GPUs, .venv, and a check of it on four ranks; in a job, since
# login nodes limit what may be compiled there. Once, from the repository's top folder in $PSCRATCH:
#
#   sbatch --account=PROJECT jobs/perlmutter/environment_gpu.sh
#
# Modules that bring Python 3.11 or 3.12 and nvcc of CUDA 12, such as `module load python cudatoolkit`,
# go into jobs/perlmutter/own.sh. The rest is as in jobs/slurm/environment_gpu.sh. Not run on Perlmutter.
set -euo pipefail
source jobs/perlmutter/site.sh
use_own jobs/perlmutter

CUDA=1 jobs/local/environment.sh
BNN_ENV=${VENV:-$PWD/.venv} jobs/check.sh perlmutter
