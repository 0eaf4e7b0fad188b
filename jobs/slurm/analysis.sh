#!/usr/bin/env bash
#SBATCH --job-name=bnn-analysis
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=00:30:00
# After the runs: their comparison as executed notebooks, from the repository's top folder:
#
#   RUNS=runs/slurm sbatch jobs/slurm/analysis.sh
#
# `make test-slurm` runs it unmodified.
set -euo pipefail
source jobs/slurm/site.sh
site_env

analyse jobs/slurm/analysis.sh
