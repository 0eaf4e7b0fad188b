#!/bin/bash -l
#SBATCH --job-name=bnn-lab
#SBATCH --constraint=cpu
#SBATCH --qos=regular
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=32
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
# JupyterLab on a job's first node; notebooks/04_interactive starts its ranks on all of them. From the
# repository's top folder in $PSCRATCH:
#
#   sbatch --account=PROJECT jobs/perlmutter/jupyter.sh
#
# The job's output names a file with the ssh tunnel and the address. Not run on Perlmutter.
set -euo pipefail
source jobs/perlmutter/site.sh
source jobs/lab.sh
site_env

lab perlmutter perlmutter.nersc.gov
