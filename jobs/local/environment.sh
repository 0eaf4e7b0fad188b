#!/usr/bin/env bash
# The environment of a laptop or a CI machine: .venv with the locked packages, and Horovod built
# against them with MPI (the index's own MPICH) and Gloo. Needs Python 3.11 or 3.12, g++ and make,
# and a Python package index; no root. Run by `make env`. A second run takes a second.
#
#   PYTHON=/path/to/python3.12   use this Python           VENV=folder   build there, not in .venv
#   CUDA=1   TensorFlow with CUDA from its own wheels, and Horovod built with NCCL, too: on a node with
#            GPUs, with nvcc of CUDA 12 in CUDA_HOME or on PATH; the sites' environment scripts set it
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=${VENV:-.venv}
# Each stamp says what a finished step was made from, so that only what changed is done again.
packages=$venv/packages.stamp horovod_built=$venv/horovod.stamp verified=$venv/verified.stamp
horovod_flags=(HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1
  HOROVOD_WITH_MPI=1 HOROVOD_WITH_GLOO=1)
# TensorFlow by pip's name for it, and what the two ranks of the check are started with.
cuda=${CUDA:-0} tensorflow=tensorflow-cpu two=(mpiexec -n 2)
if [ "$cuda" = 1 ]; then
  horovod_flags+=(HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED)
  tensorflow="tensorflow[and-cuda]"
fi
# In a job Hydra would ask the scheduler for its nodes.
[ -z "${PBS_NODEFILE:-}${SLURM_JOB_ID:-}" ] || two+=(-rmk user -launcher fork -hosts localhost)

say() { echo "make env: $*"; }
die() {
  echo "make env: $*" >&2
  exit 1
}

# --- which Python --------------------------------------------------------------------------------
fits() { # the version of a Python that fits, nothing for one that does not
  "$1" -c 'import sys
if (3, 11) <= sys.version_info < (3, 13):
    print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true
}
if [ -n "${PYTHON:-}" ]; then
  version=$(fits "$PYTHON")
  command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON: there is no such program, name a Python" \
    "3.11 or 3.12 by its path, PYTHON=/path/to/python3.11."
  [ -n "$version" ] || die "PYTHON=$PYTHON is \"$("$PYTHON" --version 2>&1 | head -n 1)\", but" \
    "TensorFlow 2.18 with Horovod 0.28.1 needs Python 3.11 or 3.12: name one," \
    "PYTHON=/path/to/python3.11."
else
  for PYTHON in "$venv/bin/python" python3.11 python3.12 python3 python; do
    version=$(fits "$PYTHON")
    [ -z "$version" ] || break
  done
  [ -n "$version" ] || die "no Python 3.11 or 3.12 on PATH: install one, or name one," \
    "make env PYTHON=/path/to/python3.11."
fi

# --- nothing to do? ------------------------------------------------------------------------------
horovod=$(sed -n 's/^horovod = \["\(.*\)"\]$/\1/p' pyproject.toml) # the one place of its version
[ -n "$horovod" ] || die 'pyproject.toml has no line horovod = ["horovod==..."]: put it back.'
locked() { sed -n "s/^\($1==[^ ]*\).*/\1/p" requirements.lock; }
horovod_from="Python $version $horovod $(locked tensorflow-cpu) $(locked mpich) ${horovod_flags[*]}"
state() { # what was asked for, and what lies there now
  echo "$horovod_from"
  cksum requirements.lock pyproject.toml jobs/local/*.sh jobs/local/*.py
  local site=("$venv"/lib/python3.*/site-packages)
  cksum "${site[0]}"/horovod/metadata.json "${site[0]}"/horovod/tensorflow/*.so
  echo "${site[0]}"/tensorflow*.dist-info
}
if [ -f "$verified" ] && [ "$(state 2>/dev/null)" = "$(cat "$verified")" ]; then
  say "$venv is up to date."
  exit 0
fi

# --- compilers, packages -------------------------------------------------------------------------
for tool in g++ make; do
  command -v "$tool" >/dev/null || die "no $tool on PATH, and Horovod is compiled here: install it" \
    "(Debian, Ubuntu: apt-get install build-essential; Fedora: dnf install gcc-c++ make)."
done
homes=() # where Horovod's build finds what no package of the lock brings
if [ "$cuda" = 1 ]; then
  : "${CUDA_HOME:=$(dirname "$(dirname "$(command -v nvcc || echo /no/bin/nvcc)")")}"
  [[ $("$CUDA_HOME/bin/nvcc" --version 2>/dev/null) == *"release 12."* ]] ||
    die "CUDA_HOME=$CUDA_HOME: no nvcc of CUDA 12 in its folder bin, and Horovod's part for GPUs is" \
      "compiled with it (the index has none): load the site's CUDA 12 module, or set CUDA_HOME."
  homes=("HOROVOD_CUDA_HOME=$CUDA_HOME")
fi

rm -f "$verified"
if [ -d "$venv" ] && [ "$(fits "$venv/bin/python")" != "$version" ]; then
  [ -f "$venv/pyvenv.cfg" ] || die "$venv is not a virtual environment: remove it, or name another" \
    "folder, VENV=folder."
  say "$venv was not made by Python $version: making it anew."
  rm -rf "$venv"
fi
if [ ! -d "$venv" ]; then
  say "Python $version"
  "$PYTHON" -m venv "$venv" ||
    die "this Python cannot make a virtual environment: install its venv module (Debian, Ubuntu:" \
      "apt-get install python3-venv), or name another Python, PYTHON=/path/to/python3.11."
fi
PATH=$(cd "$venv" && pwd)/bin:$PATH # mpicxx, cmake and mpiexec of the lock come before the system's
export PATH

packages_from=$(cksum requirements.lock)
[ "$cuda" = 0 ] || packages_from+=" $tensorflow"
if [ "$(cat "$packages" 2>/dev/null)" != "$packages_from" ]; then
  say "installing the locked packages (about 2 GB once unpacked)"
  # pip would unpack tensorflow-cpu over an older environment's tensorflow, in the same folder.
  if [ "$(uname -sm)" = "Linux x86_64" ] && pip show --quiet tensorflow 2>/dev/null; then
    pip uninstall --quiet --yes tensorflow
  fi
  # --no-deps: the lock is complete.
  pip install --disable-pip-version-check --no-deps --require-hashes -r requirements.lock ||
    die "pip could not install requirements.lock (its reason is above): check the network and" \
      "pip's index (pip config list), then run make env again."
  if [ "$cuda" = 1 ]; then
    say "installing TensorFlow with CUDA in the place of the one for CPUs (another 4 GB)"
    pip uninstall --quiet --yes tensorflow-cpu # both unpack into one folder
    wanted=$(locked tensorflow-cpu)
    pip install --disable-pip-version-check "$tensorflow==${wanted#*==}" ||
      die "pip could not install $tensorflow (its reason is above): check the network and pip's index" \
        "(pip config list), then run this again."
  fi
  echo "$packages_from" >"$packages"
fi
pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable . ||
  die "pip could not install bnnlib from this folder (its reason is above): repair pyproject.toml."

# --- Horovod -------------------------------------------------------------------------------------
if [ "$(cat "$horovod_built" 2>/dev/null)" != "$horovod_from" ]; then
  say "building $horovod with MPI and Gloo: 2 to 5 minutes on two cores, log in $venv/horovod.log"
  jobs=$(getconf _NPROCESSORS_ONLN)
  if [ "$cuda" = 1 ]; then
    nccl=$(cd "$venv"/lib/python3.*/site-packages/nvidia/nccl && pwd)
    ln -sf libnccl.so.2 "$nccl/lib/libnccl.so" # the name that a linker looks for; the wheel has it not
    homes+=("HOROVOD_NCCL_HOME=$nccl")
  fi
  # --no-build-isolation: it is compiled against the TensorFlow just installed. --no-cache-dir and
  # --no-binary: pip would reuse a wheel by name alone, built for another TensorFlow or MPI.
  # MAKEFLAGS: the number of compilers; also keeps `make env`'s own flags out of the build.
  if ! env "${horovod_flags[@]}" "${homes[@]}" MAKEFLAGS="-j$((jobs < 8 ? jobs : 8))" \
    pip install --disable-pip-version-check -v --no-deps --no-build-isolation --no-cache-dir \
    --no-binary horovod --force-reinstall "$horovod" 2>&1 | tee "$venv/horovod.log" |
    sed -un 's/^ *\(\[ *[0-9]*%\]\) Building.*CMakeFiles\/\(.*\)\.o$/\1 \2/p'; then
    tail -n 30 "$venv/horovod.log" >&2
    die "Horovod did not build (its last lines are above, all of it in $venv/horovod.log): check the" \
      "network, memory and g++ (version 9 or newer), then run make env again."
  fi
  echo "$horovod_from" >"$horovod_built"
fi

# Plain `horovodrun` takes Gloo; the file says why.
{ echo "#!$(cd "$venv" && pwd)/bin/python" && cat jobs/local/horovodrun.py; } >"$venv/bin/horovodrun"

say "checking Horovod: import, MPI and Gloo, and an allreduce of two ranks"
notes=$venv/check.log # TensorFlow's own lines at start-up, many of them about absent graphics cards
remedy="Install and build again: rm -f $venv/*.stamp && make env."
export BNN_GPUS=$cuda
why=$(python jobs/local/check_horovod.py 1 --gloo 2>"$notes") ||
  die "${why:-the check of Horovod died, see $notes.} $remedy"
why=$(timeout 120 "${two[@]}" python jobs/local/check_horovod.py 2 --gloo 2>"$notes") ||
  die "under mpiexec -n 2: ${why:-the two ranks died or waited for ever, see $notes.} $remedy"
state >"$verified"
say "$venv is ready."
