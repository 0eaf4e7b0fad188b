#!/usr/bin/env bash
# The runs of a study file side by side on this machine, with RANKS ranks in all:
#
#   RANKS=8 STUDY=jobs/studies/sweep.yaml jobs/local/pack.sh
#
# What was interrupted goes on when this is started again.
set -euo pipefail
cd "$(dirname "$0")/../.."
source jobs/local/site.sh
site_env

train_packed jobs/local/pack.sh
