#!/usr/bin/env bash
# After the runs: their comparison as executed notebooks:
#
#   RUNS=runs/sweep jobs/local/analysis.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
source jobs/local/site.sh
: "${RUNS:?the group of runs, such as RUNS=runs/sweep}"
site_env

papermill notebooks/02_calibration.ipynb "$RUNS/02_calibration.ipynb" -p runs "$RUNS"

# Scaling needs, beside runs of one rank and of more, the network's ladder of message sizes.
if [ -f "$RUNS/ladder.json" ]; then
  papermill notebooks/03_scaling.ipynb "$RUNS/03_scaling.ipynb" -p runs "$RUNS" \
    -p calibration "$RUNS" -p ladder "$RUNS/ladder.json"
else
  echo "03_scaling left out: no $RUNS/ladder.json, made by the ranks of" \
    "python -m bnnlib.scaling ladder --out $RUNS/ladder.json"
fi
