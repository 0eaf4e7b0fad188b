#!/bin/bash
#COBALT -n 128
#COBALT -t 03:00:00
#COBALT -q default
#COBALT --attrs mcdram=cache:numa=quad:filesystems=home,eagle
# The runs of a study file side by side in one job of 128 nodes, the default queue's smallest, each on
# nodes of its own; if none is named, the original study's six models on 1 to 128 nodes. From the
# repository's top folder:
#
#   qsub -A PROJECT jobs/theta/pack.sh
#
# Reference: Theta ended on 2023-12-31. Tested with stand-ins that know the documented options.
set -euo pipefail
source jobs/theta/site.sh
site_env

STUDY=${STUDY:-jobs/studies/node_sweep.yaml}
train_packed jobs/theta/pack.sh
