#!/bin/bash
#COBALT -n 1
#COBALT -t 01:00:00
#COBALT -q debug-cache-quad
#COBALT -A your_project
#COBALT --attrs mcdram=cache:numa=quad:filesystems=home,eagle
# One run of notebooks/01_train as a batch job, from the repository's top folder:
#
#   qsub -A PROJECT --env MODEL=BNN_FC_flip jobs/theta/train.sh
#
# Its variables are explained in jobs/queue.sh.
# Reference: Theta ended on 2023-12-31. Tested with
# stand-ins that know the documented options, and shellcheck.
set -euo pipefail
source jobs/theta/site.sh
site_env

PARAMS=${PARAMS:-jobs/params/mnist.yaml}
RUN=${RUN:-runs/theta/${MODEL:-BNN_conv_flip}}

# The run saves itself and stops before this second, with exit code 75.
export BNN_DEADLINE=${ENDS:-}

code=0
"${LAUNCH[@]}" papermill notebooks/01_train.ipynb "rank0:$RUN/train.ipynb" --engine spmd \
  -f "$PARAMS" ${MODEL:+-p model "$MODEL"} || code=$?

[ "$code" -ne 75 ] || resubmit jobs/theta/train.sh
exit "$code"
