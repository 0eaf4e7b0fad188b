#!/bin/bash
#COBALT -n 1
#COBALT -t 00:30:00
#COBALT -q debug-cache-quad
#COBALT --attrs mcdram=cache:numa=quad:filesystems=home,eagle
# After the runs: their comparison as executed notebooks, from the repository's top folder:
#
#   qsub -A PROJECT --env RUNS=runs/theta jobs/theta/analysis.sh
#
# Reference: Theta ended on 2023-12-31. Tested with stand-ins that know the documented options.
set -euo pipefail
source jobs/theta/site.sh
site_env

analyse jobs/theta/analysis.sh "${LAUNCH[@]}"
