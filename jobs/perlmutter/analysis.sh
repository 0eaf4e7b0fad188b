#!/bin/bash -l
#SBATCH --job-name=bnn-analysis
#SBATCH --constraint=cpu
#SBATCH --qos=regular
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=256
#SBATCH --time=00:30:00
# After the runs: their comparison as executed notebooks, from the repository's top folder:
#
#   RUNS=runs/perlmutter sbatch --account=PROJECT jobs/perlmutter/analysis.sh
#
# Not run on Perlmutter: tested with stand-ins that know the documented options.
set -euo pipefail
source jobs/perlmutter/site.sh
site_env

analyse jobs/perlmutter/analysis.sh
