#!/bin/bash -l
#PBS -N bnn-analysis
#PBS -l select=1:system=crux
#PBS -l place=scatter
#PBS -l walltime=00:30:00
#PBS -l filesystems=home:eagle
#PBS -q debug
#PBS -A your_project
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

# A run that was stopped at its walltime has a new job by now: wait for that one, too.
AFTER=$(unfinished "${RUNS:?the group of runs, such as RUNS=runs/sweep}")
if [ -n "$AFTER" ]; then
  job=$(submit jobs/crux/analysis.sh)
  echo "$job" >"$RUNS/job"
  echo "$RUNS: waits for $AFTER as job $job"
  exit 0
fi

papermill notebooks/02_calibration.ipynb "$RUNS/02_calibration.ipynb" -p runs "$RUNS"

# Scaling needs, beside runs of one rank and of more, the network's ladder of message sizes.
if [ -f "$RUNS/ladder.json" ]; then
  papermill notebooks/03_scaling.ipynb "$RUNS/03_scaling.ipynb" -p runs "$RUNS" \
    -p calibration "$RUNS" -p ladder "$RUNS/ladder.json"
else
  echo "03_scaling left out: no $RUNS/ladder.json, made by the ranks of" \
    "python -m bnnlib.scaling ladder --out $RUNS/ladder.json"
fi
