#!/bin/bash -l
#PBS -N bnn-lab
#PBS -l select=1:system=polaris
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:eagle
#PBS -q debug
#PBS -j oe
#PBS -k doe
# JupyterLab on a job's first node; notebooks/04_interactive starts its ranks on
# all of them. From the repository's top folder:
#
#   qsub -A PROJECT jobs/polaris/jupyter.sh
#
# The job's output names a file with the ssh tunnel and the address. Not run on Polaris.
set -euo pipefail
cd "$PBS_O_WORKDIR"
source jobs/polaris/site.sh
source jobs/lab.sh
site_env

lab polaris polaris.alcf.anl.gov
