#!/usr/bin/env bash
# The study on a laptop: six models on real handwritten digits, and two by IVON; the comparison; what
# ranks add. `make study` runs it; after an interruption run it again, finished runs are not trained
# twice.
#
#   jobs/local/study.sh [GROUP]   parameters from jobs/params/GROUP.yaml, records in runs/GROUP
set -euo pipefail
cd "$(dirname "$0")/../.."

# Resources: ranks on this machine; the notebook shares the cores among them.
ranks=2
group=${1:-digits}
runs=runs/$group
# Each is a model, and `_ivon` where IVON makes the posterior of its weights.
names=(CNN_FC CNN_FC_ivon BNN_FC_nonflip BNN_FC_flip
  CNN_conv CNN_conv_ivon BNN_conv_nonflip BNN_conv_flip)
# What ranks add, in a short form; jobs/local/scaling.sh alone is the long one.
case $group in digits) form=short ;; tiny) form=tiny ;; *) form="" ;; esac

# Environment: made by jobs/local/environment.sh.
PATH=$PWD/.venv/bin:$PATH
export PATH

# Seconds on two cores of each model, the comparison and what ranks add; what is finished takes five.
shares=(45 50 50 65 55 70 65 70 25 ${form:+95})
for i in "${!names[@]}"; do
  ! grep -qs '"status": "finished"' "$runs/${names[i]}/run.json" || shares[i]=5
done
steps=0

# step TEXT: the next step's heading, with the time left if this machine goes on as it has begun.
step() {
  local i gone=0 left=0 minutes told=""
  for i in "${!shares[@]}"; do
    if ((i < steps)); then gone=$((gone + shares[i])); else left=$((left + shares[i])); fi
  done
  steps=$((steps + 1))
  if ((gone)); then
    minutes=$(((left * SECONDS / gone + 30) / 60))
    case $minutes in
      0) told=", less than a minute left" ;;
      1) told=", about 1 minute left" ;;
      *) told=", about $minutes minutes left" ;;
    esac
  fi
  echo "=== $steps of ${#shares[@]}: $1$told ==="
}

for name in "${names[@]}"; do
  step "$name, $ranks ranks"
  # A dense network's posterior needs more steps than a convolution's, and they cost a tenth.
  more=()
  case $group/$name in digits/*_FC*) more=(-p epochs 400) ;; esac
  # IVON's rate is a gradient descent's; h, which sets its deviations, forgets its start in 200 steps.
  case $name in *_ivon)
    more+=(-p inference ivon -p learning_rate 0.1 -p ivon_h0 0.1 -p ivon_beta2 0.995) ;;
  esac
  mpiexec -n "$ranks" papermill --log-level WARNING --no-progress-bar notebooks/01_train.ipynb \
    "rank0:$runs/$name/train.ipynb" --engine spmd -f "jobs/params/$group.yaml" \
    -p model "${name%_ivon}" "${more[@]}"
done

step comparison
python -m bnnlib figures "$runs"

scaling=()
if [ -n "$form" ]; then
  step "what ranks add"
  jobs/local/scaling.sh "$form"
  scaling=("runs/scaling_$form")
fi

echo "=== the table ==="
python -m bnnlib table "$runs"
echo "executed notebooks:"
find "$runs" "${scaling[@]}" -name '*.ipynb' | sort
echo "figures:"
find "$runs" "${scaling[@]}" -name '*.png' | sort
