#!/usr/bin/env bash
# The scaling study on one machine: timed runs at one rank and at a rank a core, a ladder of message
# sizes, calibration against the number of ranks, then the notebook. Run again, it passes over what
# is finished.
#
#   jobs/local/scaling.sh [full | short | tiny]   records in runs/scaling, runs/scaling_short, …
#
# Times mean something only on a machine that does nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Resources: a rank a core for what is timed. Calibration may share cores.
form=${1:-full}
case $form in
  full) runs=runs/scaling suffix="" repeats=3 many="1 2 4 8" ladder=() ;;
  short | tiny)
    runs=runs/scaling_$form suffix=_$form repeats=1 many="1 2" ladder=(--times 10 --repeats 3)
    ;;
  *) echo "usage: $0 [full | short | tiny]" >&2; exit 2 ;;
esac
at_once=2

# Environment: made by jobs/local/environment.sh.
PATH=$PWD/.venv/bin:$PATH
export PATH

if [[ ! -e $runs/ladder.json ]]; then
  mpiexec -n $at_once -bind-to core python -m bnnlib ladder --out "$runs/ladder.json" \
    "${ladder[@]}"
fi
for ((repeat = 0; repeat < repeats; repeat++)); do
  for ranks in 1 $at_once; do
    echo "=== times: repeat $((repeat + 1)) of $repeats, $ranks rank(s) ==="
    mpiexec -n "$ranks" -bind-to core python -m bnnlib plan "jobs/studies/scaling$suffix.yaml" \
      --runs "$runs/time" --repeat "$repeat"
  done
done
for ranks in $many; do
  echo "=== calibration: $ranks rank(s) ==="
  mpiexec -n "$ranks" python -m bnnlib plan "jobs/studies/calibration$suffix.yaml" --runs "$runs"
done
papermill --log-level WARNING --no-progress-bar notebooks/03_scaling.ipynb \
  "rank0:$runs/03_scaling.ipynb" -p runs "$runs/time" \
  -p calibration "$runs/calibration" -p ladder "$runs/ladder.json" -p figures "$runs/figures"
