#!/usr/bin/env bash
#SBATCH --job-name=bnn-gpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --time=01:00:00
# One run of notebooks/01_train as a batch job, from the repository's top folder:
#
#   MODEL=BNN_conv_flip sbatch jobs/slurm/train_gpu.sh
#   python -m bnnlib sweep FILE --gpus 4        every run of a study file by this script
#
# Its variables are explained in jobs/queue.sh. One rank a GPU; a rank that sees none does not train.
# environment_gpu.sh makes the environment. Not run: there was no GPU.
set -euo pipefail
source jobs/slurm/site.sh
site_env

train jobs/slurm/train_gpu.sh jobs/params/digits.yaml
