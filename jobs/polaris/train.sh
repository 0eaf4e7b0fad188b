#!/bin/bash -l
#PBS -N bnn
#PBS -l select=1:system=polaris
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:eagle
#PBS -q preemptable
#PBS -r y
#PBS -j oe
#PBS -k doe
# One run of notebooks/01_train as a batch job, from the repository's top folder:
#
#   qsub -A PROJECT -v MODEL=BNN_FC_flip jobs/polaris/train.sh
#
# Its variables are explained in jobs/queue.sh. Not run on Polaris: tested with stand-ins that
# know the documented options.
set -euo pipefail
cd "$PBS_O_WORKDIR"
source jobs/polaris/site.sh
site_env

train jobs/polaris/train.sh jobs/params/digits.yaml
