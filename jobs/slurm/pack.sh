#!/usr/bin/env bash
#SBATCH --job-name=bnn-pack
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
# The runs of a study file side by side on parts of this job's nodes, from the repository's top folder:
#
#   STUDY=jobs/studies/sweep.yaml sbatch --nodes=2 --ntasks-per-node=16 jobs/slurm/pack.sh
#   PPN=16 python -m bnnlib sweep jobs/studies/sweep.yaml --packed --nodes 2
#
# Its variables are explained in jobs/queue.sh. `make test-slurm` runs it unmodified.
set -euo pipefail
source jobs/slurm/site.sh
site_env

train_packed jobs/slurm/pack.sh
