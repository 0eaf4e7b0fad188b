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

"${LAUNCH[@]}" papermill notebooks/02_calibration.ipynb "$RUNS/02_calibration.ipynb" -p runs "$RUNS"

# Scaling needs, beside runs of one rank and of more, the network's ladder of message sizes.
if [ -f "$RUNS/ladder.json" ]; then
  "${LAUNCH[@]}" papermill notebooks/03_scaling.ipynb "$RUNS/03_scaling.ipynb" -p runs "$RUNS" \
    -p calibration "$RUNS" -p ladder "$RUNS/ladder.json"
else
  echo "03_scaling left out: no $RUNS/ladder.json, made by the ranks of" \
    "python -m bnnlib.scaling ladder --out $RUNS/ladder.json"
fi
