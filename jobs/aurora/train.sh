#!/bin/bash -l
#PBS -N bnn
#PBS -l select=1:system=aurora
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:flare
#PBS -q debug
#PBS -A your_project
#PBS -j oe
#PBS -k doe
# One run of notebooks/01_train as a batch job, from the repository's top folder:
#
#   qsub -A PROJECT -v MODEL=BNN_FC_flip jobs/aurora/train.sh
#
# Its variables are explained in jobs/queue.sh. Not run on Aurora: tested with stand-ins that
# know the documented options.
set -euo pipefail
cd "$PBS_O_WORKDIR"
source jobs/aurora/site.sh
site_env

PARAMS=${PARAMS:-jobs/params/mnist.yaml}
RUN=${RUN:-runs/aurora/${MODEL:-BNN_conv_flip}}

# The run saves itself and stops before this second, with exit code 75.
export BNN_DEADLINE=${ENDS:-}

code=0
"${LAUNCH[@]}" papermill notebooks/01_train.ipynb "rank0:$RUN/train.ipynb" --engine spmd \
  -f "$PARAMS" ${MODEL:+-p model "$MODEL"} || code=$?

[ "$code" -ne 75 ] || resubmit jobs/aurora/train.sh
exit "$code"
