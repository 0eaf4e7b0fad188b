#!/bin/bash -l
#PBS -N bnn-analysis
#PBS -l select=1:system=crux
#PBS -l place=scatter
#PBS -l walltime=00:30:00
#PBS -l filesystems=home:eagle
#PBS -q workq-route
#PBS -r y
#PBS -j oe
#PBS -k doe
# After the runs: their comparison as executed notebooks, from the repository's top folder:
#
#   qsub -A PROJECT -v RUNS=runs/crux jobs/crux/analysis.sh
#
# Not run on Crux: tested with stand-ins that
# know the documented options.
set -euo pipefail
cd "$PBS_O_WORKDIR"
source jobs/crux/site.sh
site_env

analyse jobs/crux/analysis.sh
