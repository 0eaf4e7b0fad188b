#!/usr/bin/env bash
# The study on a laptop: six models on real handwritten digits, and two by IVON; the comparison. `make study`
# runs it; after an interruption run it again, finished runs are not trained twice.
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

# Environment: made by jobs/local/environment.sh.
PATH=$PWD/.venv/bin:$PATH
export PATH

for i in "${!names[@]}"; do
  name=${names[i]}
  model=${name%_ivon}
  echo "=== $((i + 1)) of ${#names[@]}: $name, $ranks ranks ==="
  # A dense network's posterior needs more steps than a convolution's, and they cost a tenth.
  more=()
  case $group/$name in digits/*_FC*) more=(-p epochs 400) ;; esac
  # IVON's rate is a gradient descent's; h, which sets its deviations, forgets its start in 200 steps.
  case $name in *_ivon)
    more+=(-p inference ivon -p learning_rate 0.1 -p ivon_h0 0.1 -p ivon_beta2 0.995) ;;
  esac
  mpiexec -n "$ranks" papermill notebooks/01_train.ipynb "rank0:$runs/$name/train.ipynb" \
    --engine spmd -f "jobs/params/$group.yaml" -p model "$model" "${more[@]}"
done

echo "=== comparison ==="
python -m bnnlib figures "$runs"

# What ranks add, in its short form; jobs/local/scaling.sh alone is the long one.
scaling=()
case $group in
  digits) jobs/local/scaling.sh short; scaling=(runs/scaling_short) ;;
  tiny) jobs/local/scaling.sh tiny; scaling=(runs/scaling_tiny) ;;
esac

echo "=== the table ==="
python -m bnnlib table "$runs"
echo "executed notebooks:"
find "$runs" "${scaling[@]}" -name '*.ipynb' | sort
echo "figures:"
find "$runs" "${scaling[@]}" -name '*.png' | sort
