#!/usr/bin/env bash
# JupyterLab on this machine, in the environment of `make env`; from the repository's top folder:
#
#   jobs/local/jupyter.sh              here, as `make lab` does
#   LOGIN=gateway jobs/local/jupyter.sh  on a machine that you reach through another: says the tunnel
set -euo pipefail
source jobs/local/site.sh
source jobs/lab.sh
site_env

lab local "${LOGIN:-}"
