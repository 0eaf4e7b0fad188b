#!/usr/bin/env bash
# After the runs: their comparison as executed notebooks:
#
#   RUNS=runs/sweep jobs/local/analysis.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
source jobs/local/site.sh
site_env

analyse jobs/local/analysis.sh
