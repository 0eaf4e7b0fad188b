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

# A run that was stopped at its walltime has a new job by now: wait for that one, too.
AFTER=$(unfinished "${RUNS:?the group of runs, such as RUNS=runs/sweep}")
if [ -n "$AFTER" ]; then
  job=$(submit jobs/slurm/analysis.sh)
  echo "$job" >"$RUNS/job"
  echo "$RUNS: waits for $AFTER as job $job"
  exit 0
fi

for notebook in 02_calibration 03_scaling; do
  [ ! -f "notebooks/$notebook.ipynb" ] ||
    papermill "notebooks/$notebook.ipynb" "$RUNS/$notebook.ipynb" -p runs "$RUNS"
done
