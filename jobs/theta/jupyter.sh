#!/bin/bash
#COBALT -n 1
#COBALT -t 01:00:00
#COBALT -q debug-cache-quad
#COBALT --attrs mcdram=cache:numa=quad:filesystems=home,eagle
# JupyterLab for a job's nodes; notebooks/04_interactive starts its ranks with
# aprun. From the repository's top folder:
#
#   qsub -A PROJECT jobs/theta/jupyter.sh
#
# The job's output names a file with the ssh tunnel and the address. Reference: Theta ended on
# 2023-12-31. JupyterLab and the notebook's own cells would run on a service node, whose processor
# lacks what TensorFlow's build may need; the ranks run on the compute nodes.
set -euo pipefail
source jobs/theta/site.sh
source jobs/lab.sh
site_env

lab theta theta.alcf.anl.gov
