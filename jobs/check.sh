#!/usr/bin/env bash
# Is this site's Horovod usable? Inside a job, from the repository's top folder:
#
#   jobs/check.sh polaris
#
# The ranks, their launcher and their environment are those of a run in this job. Where one cannot be
# used, it says why in a sentence.
set -euo pipefail
site=${1:?a site, such as polaris}
# shellcheck source=jobs/local/site.sh
source "jobs/$site/site.sh"
site_env

"${LAUNCH[@]}" python jobs/local/check_horovod.py "$RANKS"
echo "$site: $RANKS rank(s) add up"
