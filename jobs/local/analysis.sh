#!/usr/bin/env bash
# After the runs: their comparison as executed notebooks:
#
#   RUNS=runs/sweep jobs/local/analysis.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
source jobs/local/site.sh
: "${RUNS:?the group of runs, such as RUNS=runs/sweep}"
site_env

for notebook in 02_calibration 03_scaling; do
  [ ! -f "notebooks/$notebook.ipynb" ] ||
    papermill "notebooks/$notebook.ipynb" "$RUNS/$notebook.ipynb" -p runs "$RUNS"
done
