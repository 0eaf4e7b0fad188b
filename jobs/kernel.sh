#!/usr/bin/env bash
# Installs a kernel for a site's JupyterHub, such as jupyter.alcf.anl.gov, with the environment that the
# site's job scripts have; on a login node, from the repository's top folder:
#
#   PROJECT=NAME jobs/kernel.sh polaris
#
# The hub shows it as "bnnlib (polaris)". Install it again after a change of own.sh, of the site's
# modules or of BNN_ENV; `jupyter kernelspec remove bnnlib-polaris` takes it away.
set -euo pipefail
site=${1:?a folder of jobs/, such as polaris}
# shellcheck source=jobs/local/site.sh
source "jobs/$site/site.sh"
export BNN_SITE=$site
unset BNN_SITE_ENV # where this is typed in a JupyterLab
names=(BNN_SITE)
for name in PROJECT BNN_ENV BNN_DATA BNN_STOP_MARGIN BNN_FABRIC BNN_PASS ${BNN_PASS:-}; do
  [ -z "${!name:-}" ] || names+=("$name")
done
export "${names[@]}"

# As `ipykernel install --user --env NAME VALUE …`, which takes no value that begins with a dash. What
# a script exports is written down also where this shell had it already.
"$BNN_ENV/bin/python" - "${names[@]}" <<'END_OF_PYTHON'
import os
import re
import sys
from pathlib import Path

from ipykernel.kernelspec import install

from bnnlib.launch import sites

site, names = os.environ["BNN_SITE"], sys.argv[1:]
for script in [Path("jobs/queue.sh"), Path("jobs/pbs.sh"), *Path("jobs", site).glob("*.sh")]:
    for line in re.findall(r"^\s*export (.*)", script.read_text(), re.MULTILINE):
        names += re.findall(r"(\w+)=", line)
env = {name: os.environ[name] for name in names if name in os.environ} | sites.environment(site)
env = {name: value.replace("$", "$$") for name, value in sorted(env.items())}  # Jupyter expands $
env["PATH"] += ":${PATH}"  # the hub's own
where = install(user=True, kernel_name=f"bnnlib-{site}", display_name=f"bnnlib ({site})", env=env)
print(f"{where}: {', '.join(env)}")
END_OF_PYTHON
