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
#
# Its variables are explained in jobs/queue.sh. One rank a GPU: each takes the GPU of its place on
# the node, so srun must show a rank all of them. BNN_ENV must have a Horovod built with NCCL. Not
# run: there was no GPU.
set -euo pipefail
source jobs/slurm/site.sh
site_env

LAUNCH+=(--gpu-bind=none) # none: no rank is shown one GPU alone
train jobs/slurm/train_gpu.sh jobs/params/mnist.yaml
