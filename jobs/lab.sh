#!/usr/bin/env bash
# JupyterLab as each site's jupyter.sh starts it: on this machine's loopback alone, with a token.
# Address, token and tunnel go to a file that only you can read, since a job's output often is not.
set -euo pipefail

# lab LOGIN: runs JupyterLab until the job ends; LOGIN is the host that you reach by ssh, or nothing.
lab() {
  local port token file child code=0 options=(--ServerApp.port_retries=0 --notebook-dir .)
  port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  token=$(python -c 'import secrets; print(secrets.token_hex(24))')
  mkdir -p runs
  file=$(mktemp "runs/jupyter-XXXXXX") # mode 600
  {
    if [ -n "$1" ]; then
      echo "On your own machine, and leave it running:"
      echo "  ssh -N -L $port:127.0.0.1:$port -J $USER@$1 $USER@$(hostname)"
      echo "then open there:"
    fi
    echo "  http://127.0.0.1:$port/lab/tree/notebooks/04_interactive.ipynb?token=$token"
  } >"$file"
  echo "JupyterLab starts. How to open it: cat $file"
  [ "$(id -u)" -ne 0 ] || options+=(--allow-root) # as in a container
  # By the environment: anybody on this machine can read a command line.
  JUPYTER_TOKEN=$token jupyter lab --no-browser --ip=127.0.0.1 --port="$port" \
    "${options[@]}" &
  child=$!
  trap 'kill "$child"' INT TERM # the kernels end with it, and with them their ranks
  wait "$child" || code=$?
  [ "$code" -le 128 ] || wait "$child" || true
  rm -f "$file"
}
