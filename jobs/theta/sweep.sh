#!/bin/bash
#COBALT -n 128
#COBALT -t 03:00:00
#COBALT -q default
#COBALT --attrs mcdram=cache:numa=quad:filesystems=home,eagle
# Six models on 1 to 128 nodes in one job of 128, the default queue's smallest: 1 to 64 nodes run
# side by side (they are 127 together), then 128. From the repository's top folder:
#
#   qsub -A PROJECT jobs/theta/sweep.sh
#
# Reference: Theta ended on 2023-12-31. Tested with stand-ins that know the documented options.
set -euo pipefail
source jobs/theta/site.sh
site_env

MODELS=${MODELS:-CNN_FC BNN_FC_nonflip BNN_FC_flip CNN_conv BNN_conv_nonflip BNN_conv_flip}
COUNTS=${COUNTS:-1 2 4 8 16 32 64 128}
PARAMS=${PARAMS:-jobs/params/digits.yaml}
RUN=${RUN:-runs/theta_sweep}
mkdir -p "$RUN"

# The runs save themselves and stop before this second, with exit code 75.
export BNN_DEADLINE=${ENDS:-}

run() { # run MODEL NODES
  RANKS=$(($2 * PPN))
  source jobs/theta/site.sh # LAUNCH for these ranks
  "${LAUNCH[@]}" papermill notebooks/01_train.ipynb "rank0:$RUN/$1-n$2/train.ipynb" --engine spmd \
    -f "$PARAMS" -p model "$1"
}

code=0
finish() { # waits for all that run; one that was stopped counts more than one that failed
  local id status
  for id in "${started[@]}"; do
    status=0
    wait "$id" || status=$?
    [ "$status" -eq 0 ] || [ "$code" -eq 75 ] || code=$status
  done
  started=() free=$NODES
}

for model in $MODELS; do
  started=() free=$NODES
  for count in $COUNTS; do
    [ "$count" -le "$free" ] || finish
    run "$model" "$count" &
    started+=($!) free=$((free - count))
    sleep 1 # ALPS asks for a pause between apruns
  done
  finish
done

[ "$code" -ne 75 ] || resubmit jobs/theta/sweep.sh # finished runs end at once
exit "$code"
