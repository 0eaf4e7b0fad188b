#!/usr/bin/env bash
#SBATCH --job-name=bnn
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
# One run of notebooks/01_train as a batch job, from the repository's top folder:
#
#   MODEL=BNN_FC_flip sbatch --ntasks-per-node=4 jobs/slurm/train.sh
#
# Its variables are explained in jobs/queue.sh. `make test-slurm` runs it unmodified.
set -euo pipefail
source jobs/slurm/site.sh
site_env

train jobs/slurm/train.sh jobs/params/digits.yaml
