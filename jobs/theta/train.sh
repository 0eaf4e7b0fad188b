#!/bin/bash
#COBALT -n 1
#COBALT -t 01:00:00
#COBALT -q debug-cache-quad
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

train jobs/theta/train.sh jobs/params/digits.yaml
