#!/bin/bash -l
#SBATCH --job-name=bnn
#SBATCH --constraint=cpu
#SBATCH --qos=regular
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=32
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --requeue
# One run of notebooks/01_train as a batch job, from the repository's top folder in $PSCRATCH:
#
#   MODEL=BNN_FC_flip sbatch --account=PROJECT jobs/perlmutter/train.sh
#
# Its variables are explained in jobs/queue.sh. Not run on Perlmutter: tested with stand-ins that
# know the documented options.
set -euo pipefail
source jobs/perlmutter/site.sh
site_env

train jobs/perlmutter/train.sh jobs/params/digits.yaml
