#!/usr/bin/env bash
#SBATCH --job-name=bnn-lab
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
# JupyterLab on a job's first node; notebooks/04_interactive starts its ranks on
# all of them. From the repository's top folder, LOGIN being the host that you reach by ssh:
#
#   LOGIN=login.example.org sbatch jobs/slurm/jupyter.sh
#
# The job's output names a file with the ssh tunnel and the address.
set -euo pipefail
source jobs/slurm/site.sh
source jobs/lab.sh
site_env

lab slurm "${LOGIN:-$SLURM_SUBMIT_HOST}"
