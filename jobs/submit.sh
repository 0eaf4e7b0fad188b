#!/usr/bin/env bash
# Queues a job in the queue that takes it, or says which comes nearest; from the repository's top folder:
#
#   PROJECT=NAME NODES=20 WALLTIME=02:00:00 MODEL=BNN_FC_flip jobs/submit.sh jobs/polaris/train.sh
#
# The variables are explained in jobs/queue.sh. qsub and sbatch alone do as well, where the queue in
# the script, or that of your -q, takes the job.
set -euo pipefail
script=${1:?a job script, such as jobs/polaris/train.sh}
# shellcheck source=jobs/local/site.sh
source "$(dirname "$script")/site.sh"

submit "$script"
