#!/usr/bin/env bash
# One run of notebooks/01_train on this machine:
#
#   MODEL=BNN_FC_flip RANKS=2 jobs/local/train.sh                       (mpiexec, MPI)
#   MODEL=BNN_FC_flip RANKS=2 LAUNCHER=horovodrun jobs/local/train.sh   (Horovod's, Gloo)
#
# RUN, PARAMS and MODEL as for the batch systems (jobs/queue.sh). A run that was interrupted goes on
# when this is started again.
set -euo pipefail
cd "$(dirname "$0")/../.."
source jobs/local/site.sh
site_env

train jobs/local/train.sh jobs/params/digits.yaml
