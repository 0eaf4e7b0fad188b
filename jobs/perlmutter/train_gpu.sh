#!/bin/bash -l
#SBATCH --job-name=bnn-gpu
#SBATCH --constraint=gpu
#SBATCH --qos=regular
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=01:00:00
#SBATCH --requeue
# One run of notebooks/01_train as a batch job, from the repository's top folder in $PSCRATCH:
#
#   MODEL=BNN_conv_flip sbatch --account=PROJECT jobs/perlmutter/train_gpu.sh
#
# Its variables are explained in jobs/queue.sh. One rank a GPU; a rank that sees none does not train.
# environment_gpu.sh makes the environment. Not run on Perlmutter: tested with stand-ins that know the
# documented options.
set -euo pipefail
source jobs/perlmutter/site.sh
site_env

train jobs/perlmutter/train_gpu.sh jobs/params/digits.yaml
