#!/bin/bash -l
#PBS -N bnn-pack
#PBS -l select=16:system=aurora
#PBS -l place=scatter
#PBS -l walltime=12:00:00
#PBS -l filesystems=home:flare
#PBS -q capacity
#PBS -r y
#PBS -j oe
#PBS -k doe
# The runs of a study file side by side on parts of this job's nodes, from the repository's top folder:
#
#   qsub -A PROJECT -v STUDY=jobs/studies/sweep.yaml jobs/aurora/pack.sh
#   python -m bnnlib sweep jobs/studies/sweep.yaml --packed --nodes 16
#
# The first takes these directives, the second the queue that takes the job. Variables are explained
# in jobs/queue.sh. Not run on Aurora: tested with stand-ins that know the documented options.
set -euo pipefail
cd "$PBS_O_WORKDIR"
source jobs/aurora/site.sh
site_env

train_packed jobs/aurora/pack.sh
