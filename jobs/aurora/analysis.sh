#!/bin/bash -l
#PBS -N bnn-analysis
#PBS -l select=1:system=aurora
#PBS -l place=scatter
#PBS -l walltime=00:30:00
#PBS -l filesystems=home:flare
#PBS -q capacity
#PBS -r y
#PBS -j oe
#PBS -k doe
# After the runs: their comparison as executed notebooks, from the repository's top folder:
#
#   qsub -A PROJECT -v RUNS=runs/aurora jobs/aurora/analysis.sh
#
# Not run on Aurora: tested with stand-ins that
# know the documented options.
set -euo pipefail
cd "$PBS_O_WORKDIR"
source jobs/aurora/site.sh
site_env

analyse jobs/aurora/analysis.sh
