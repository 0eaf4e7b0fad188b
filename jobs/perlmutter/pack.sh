#!/bin/bash -l
#SBATCH --job-name=bnn-pack
#SBATCH --constraint=cpu
#SBATCH --qos=regular
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=32
#SBATCH --cpus-per-task=8
#SBATCH --time=06:00:00
#SBATCH --requeue
# The runs of a study file side by side on parts of this job's nodes, from the repository's top folder
# in $PSCRATCH:
#
#   STUDY=jobs/studies/sweep.yaml sbatch --account=PROJECT --nodes=2 jobs/perlmutter/pack.sh
#   PROJECT=NAME python -m bnnlib sweep jobs/studies/sweep.yaml --packed --nodes 2
#   PROJECT=NAME CONSTRAINT=gpu THREADS=32 python -m bnnlib sweep … --packed --gpus 4    a rank a GPU
#
# Its variables are explained in jobs/queue.sh. Not run on Perlmutter: tested with stand-ins that
# know the documented options.
set -euo pipefail
source jobs/perlmutter/site.sh
site_env

train_packed jobs/perlmutter/pack.sh
