#!/bin/bash
#COBALT -n 1
#COBALT -t 00:30:00
#COBALT -q debug-cache-quad
#COBALT -A your_project
#COBALT --attrs mcdram=cache:numa=quad:filesystems=home,eagle
# After the runs: their comparison as executed notebooks, from the repository's top folder:
#
#   qsub -A PROJECT --env RUNS=runs/theta jobs/theta/analysis.sh
#
# Reference: Theta ended on 2023-12-31. Tested with stand-ins that know the documented options.
set -euo pipefail
source jobs/theta/site.sh
site_env

# A run that was stopped at its walltime has a new job by now: wait for that one, too.
AFTER=$(unfinished "${RUNS:?the group of runs, such as RUNS=runs/sweep}")
if [ -n "$AFTER" ]; then
  job=$(submit jobs/theta/analysis.sh)
  echo "$job" >"$RUNS/job"
  echo "$RUNS: waits for $AFTER as job $job"
  exit 0
fi

for notebook in 02_calibration 03_scaling; do
  [ ! -f "notebooks/$notebook.ipynb" ] ||
    "${LAUNCH[@]}" papermill "notebooks/$notebook.ipynb" "$RUNS/$notebook.ipynb" -p runs "$RUNS"
done
