#!/usr/bin/env bash
# JupyterLab as each site's jupyter.sh starts it: on this machine's loopback alone, with a token.
# Address, token and tunnel go to a file that only you can read, since a job's output often is not.
set -euo pipefail

# Has git compare and commit the notebooks as they are stored, so that opening and running them
# leaves `git status` clean (.gitattributes). Without git or nbstripout there is nothing to do.
notebooks_in_git() {
  PATH=.venv/bin:$PATH command -v nbstripout >/dev/null || return 0
  git config filter.notebook.clean jobs/local/strip.sh 2>/dev/null || true
}

# lab SITE [LOGIN]: runs JupyterLab until the job ends; LOGIN is the host that you reach by ssh.
lab() {
  local port token file child me code=0 options=(--ServerApp.port_retries=0 --notebook-dir .)
  # Else ipykernel warns of each kernel that others of this machine could listen.
  options+=(--MappingKernelManager.transport_encryption=auto)
  options+=(--FileContentsManager.post_save_hook=bnnlib.interactive.saving.after_save)
  port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  token=$(python -c 'import secrets; print(secrets.token_hex(24))')
  mkdir -p runs
  notebooks_in_git
  file=$(mktemp "runs/jupyter-XXXXXX") # mode 600
  {
    if [ -n "${2:-}" ]; then
      echo "On your own machine, and leave it running:"
      me=$(id -un)
      echo "  ssh -N -L $port:127.0.0.1:$port -J $me@$2 $me@$(hostname)"
      echo "then open there:"
    fi
    echo "  http://127.0.0.1:$port/lab/tree/notebooks/04_interactive.ipynb?token=$token"
  } >"$file"
  echo "JupyterLab starts. How to open it: cat $file"
  [ "$(id -u)" -ne 0 ] || options+=(--allow-root) # as in a container
  # BNN_SITE: where its notebooks start their ranks. The token by the environment, since anybody on this
  # machine can read a command line.
  BNN_SITE=$1 JUPYTER_TOKEN=$token jupyter lab --no-browser --ip=127.0.0.1 --port="$port" \
    "${options[@]}" &
  child=$!
  trap 'kill "$child"' INT TERM # the kernels end with it, and with them their ranks
  wait "$child" || code=$?
  [ "$code" -le 128 ] || wait "$child" || true
  rm -f "$file"
}
