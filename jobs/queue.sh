#!/usr/bin/env bash
# What the sites share; each site.sh sources it and adds `submit`, `job_state` and `site_env`.
#
# A job is told what to do by variables, so that one script serves all runs:
#   RUN      the run's folder                PARAMS  a parameter file    MODEL  instead of the file's
#   RUNS     the group that analysis.sh reads; for pack.sh the folder of the groups (runs)
#   STUDY    the study file whose runs pack.sh trains side by side
#   NODES, RANKS, PPN (ranks a node), THREADS (cores a rank), WALLTIME (HH:MM:SS)
#   GPUS     GPUs of a node that its ranks are given, each one of its own; a rank that sees none does
#            not train. 0: ranks on CPUs, also where the nodes have GPUs
#   AFTER    ids of jobs to wait for, a:b    PROJECT, QUEUE  to charge, and to wait in; a job that is
#            queued by another has that one's, unless these say otherwise
#   BNN_PASS names of your own variables that such a job keeps, too: BNN_PASS="NCCL_DEBUG FOO"
#   RESUBMITS  how often a job that ran out of time may still submit its successor
#   BNN_ENV  the Python environment (.venv, else the conda environment that is active)
#   BNN_PACKED  an archive of it (jobs/pack_environment.sh): each node takes its own copy, to the folder
#            BNN_NODE_DISK (the site's local disk)
#   BNN_CONTAINER  an Apptainer image instead (jobs/container); BNN_COPPER=1  Aurora's cache instead
#   BNN_DATA the data sets
#   BNN_STOP_MARGIN  seconds before the walltime at which a run begins to stop (60)
#   BNN_FABRIC  0: what the site documents for its network (FI_*, NCCL_*) is left unset
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail

RESUBMITS=${RESUBMITS:-20}
if [ -z "${BNN_ENV:-}" ]; then
  BNN_ENV=$PWD/.venv
  [ -d .venv ] || BNN_ENV=${CONDA_PREFIX:-$BNN_ENV}
fi

ways=(${BNN_PACKED:+BNN_PACKED} ${BNN_CONTAINER:+BNN_CONTAINER} ${BNN_COPPER:+BNN_COPPER})
if [ "${#ways[@]}" -gt 1 ]; then
  echo "${ways[*]}: each says where the ranks' Python comes from; set one of them" >&2
  exit 1
elif [ -n "${BNN_COPPER:-}" ] && [ "${SYSTEM:-}" != aurora ]; then
  echo "BNN_COPPER: only Aurora has Copper; use BNN_PACKED here" >&2
  exit 1
fi

# What stands between the launcher and each rank's program, at the end of every LAUNCH.
INSIDE=()
[ -z "${BNN_PACKED:-}" ] || INSIDE=(jobs/packed.sh)
# A run's code is the checkout's, not what the image was built from.
[ -z "${BNN_CONTAINER:-}" ] ||
  INSIDE=(apptainer exec --pwd "$PWD" --env "PYTHONPATH=$PWD" "$BNN_CONTAINER")

# Exports what a new job must know of this one, and puts the names into PASSED. A queue takes the
# values from the environment: in a list on its command line a comma in RUN would end the value.
pass_on() {
  local name
  PASSED=()
  for name in RUN PARAMS MODEL RUNS STUDY RANKS PPN THREADS GPUS RESUBMITS PROJECT QUEUE \
    BNN_ENV BNN_PACKED BNN_NODE_DISK BNN_CONTAINER BNN_COPPER BNN_DATA BNN_STOP_MARGIN BNN_FABRIC \
    BNN_PASS ${BNN_PASS:-}; do
    [ -z "${!name:-}" ] || PASSED+=("$name")
  done
  export "${PASSED[@]}"
}

# Fails where there is no project to charge for the job script $1; $2 is how a job is given one.
need_project() {
  [ -z "$PROJECT" ] || return 0
  echo "$1: no project to charge; export PROJECT=NAME, or give the job one: $2" >&2
  return 1
}

# queue_for NODES WALLTIME [QUEUE]: prints the queue that takes so many nodes for so long (HH:MM:SS)
# and lets a job queue its successor: QUEUE, where one is named, else the first of the table QUEUES,
# whose lines are: name, nodes at least, nodes at most, hours at most, chain or alone. Where none
# takes them, it names the nearest and fails: some sites give such a job an id and lose it. A queue
# that the table does not know, such as a reservation's, is left to the site to judge.
queue_for() {
  awk -v nodes="$1" -v walltime="$2" -v wanted="${3:-}" -v site="$SYSTEM" '
    function off(value, least, most) { # 1 where it fits, else how many times too small or large
      return value < least ? least / value : value > most ? value / most : 1
    }
    BEGIN { split(walltime, part, ":"); hours = part[1] + part[2] / 60 + part[3] / 3600 }
    NF == 0 { next }
    $1 == wanted { known = 1; kind = $5 }
    $5 == "chain" {
      far = off(nodes, $2, $3) * off(hours, 0, $4)
      if (far == 1 && !queue && (wanted == "" || $1 == wanted)) queue = $1
      if (!nearest || far < least) {
        least = far
        nearest = $1 " takes " $2 " to " $3 " nodes for up to " $4 " hours"
      }
    }
    END {
      if (wanted != "" && !known) queue = wanted
      if (queue) { print queue; exit }
      job = nodes " nodes for " walltime
      if (kind == "alone") why = wanted " takes one job a user, or allows no chain: none there can queue another"
      else why = wanted == "" ? "no queue takes " job : wanted " does not take " job
      print site ": " why "; nearest: " nearest > "/dev/stderr"
      exit 1
    }' <<<"$QUEUES"
}

# Puts the environment's programs first, but for the launcher: that must be the site's own, and
# the environment may hold an mpiexec, too. Last comes the user's own.sh.
use_environment() {
  local launcher
  if [ -z "${BNN_CONTAINER:-}" ] && [ ! -x "$BNN_ENV/bin/papermill" ]; then
    echo "BNN_ENV=$BNN_ENV: no papermill there; run make env, or name your environment, such as" \
      "BNN_ENV=\$CONDA_PREFIX" >&2
    exit 1
  fi
  if ! launcher=$(command -v "${LAUNCH[0]}"); then
    echo "${LAUNCH[0]}: no such program here, and the ranks are started with it: run this in a job" >&2
    exit 1
  fi
  LAUNCH[0]=$launcher
  local folder
  folder=$(dirname "${BASH_SOURCE[1]}")
  # BNN_SITE_ENV: whoever is started from here has this site's environment already.
  export PATH=$BNN_ENV/bin:$PATH BNN_SITE_ENV=${folder##*/}
  use_own "$folder"
  use_packed
}

# Where BNN_PACKED is set: refuses an archive that is older than the environment, and has the nodes'
# copies removed when the job's script ends.
use_packed() {
  [ -n "${BNN_PACKED:-}" ] || return 0
  local packages why=""
  [ -f "$BNN_PACKED" ] || why="there is no such file"
  for packages in "$BNN_ENV"/lib/python3*/site-packages; do
    if [ -z "$why" ] && [ "$packages" -nt "$BNN_PACKED" ]; then
      why="$BNN_ENV has changed since it was packed"
    fi
  done
  if [ -n "$why" ]; then
    echo "BNN_PACKED=$BNN_PACKED: $why; make it by jobs/pack_environment.sh $BNN_PACKED" >&2
    exit 1
  fi
  trap 'on_nodes jobs/packed.sh --remove || true' EXIT
}

# What a user needs beside, such as modules: the file own.sh in the site's folder $1, which git ignores.
use_own() {
  [ -f "$1/own.sh" ] || return 0
  set +u # modules read variables that are not set
  # shellcheck source=/dev/null
  source "$1/own.sh"
  set -u
}

# use_fabric NAME=VALUE…: exports what a site documents for its network, but for what is set already.
use_fabric() {
  local setting name
  [ "${BNN_FABRIC:-1}" != 0 ] || return 0
  for setting; do
    name=${setting%%=*}
    [ -n "${!name:-}" ] || export "${setting?}"
  done
}

# Cray's MPICH in place of the package index's, by its binary interface: the module, and its libraries
# first on the path, before those that Horovod was built with. Without the second each rank is alone.
use_cray_mpich() {
  set +u # modules read variables that are not set
  module "$@"
  set -u
  if [ -z "${CRAY_LD_LIBRARY_PATH:-}" ]; then
    echo "module $*: CRAY_LD_LIBRARY_PATH is not set, so Horovod would not find Cray's MPICH" >&2
    exit 1
  fi
  export LD_LIBRARY_PATH=$CRAY_LD_LIBRARY_PATH:${LD_LIBRARY_PATH:-}
}

# The ids, a:b, of jobs that still wait or run for the group $1; each run's job is in RUN/job. Fails
# where the queue cannot be asked.
unfinished() {
  local file job jobs=() asked=" "
  for file in "$1"/*/job; do
    [ -f "$file" ] || continue
    job=$(cat "$file")
    [[ $asked != *" $job "* ]] || continue # of several runs, packed
    asked+="$job "
    case $(job_state "$job") in
      queued) jobs+=("$job") ;;
      unknown)
        echo "${file%/job}: the queue cannot be asked about its job $job; submit this again" >&2
        return 1
        ;;
    esac
  done
  local IFS=:
  echo "${jobs[*]}"
}

# Exit code 75 means "resubmit me": the run was stopped before the walltime and its checkpoint is
# kept. Queues this script again and ends well; ends with 75 where nothing more may be queued.
resubmit() {
  if [ "$RESUBMITS" -le 0 ]; then
    echo "$RUN: stopped at the walltime again, and RESUBMITS is used up: submit $1 yourself" >&2
    exit 75
  fi
  RESUBMITS=$((RESUBMITS - 1))
  local job
  mkdir -p "$RUN"
  if declare -F requeue >/dev/null && requeue; then
    echo "$RUN: stopped at the walltime, requeued under the same job id"
    sleep 60 # the queue ends this job now
    exit 75
  fi
  job=$(AFTER="" submit "$1") || exit 75
  echo "$job" >"$RUN/job"
  echo "$RUN: stopped at the walltime, continued by job $job"
  exit 0
}

# The words of one run after the launcher's, in WORDS: the notebook of RUN, with the parameter file
# PARAMS. $1 is the site.
run_words() {
  WORDS=(papermill notebooks/01_train.ipynb "rank0:$RUN/train.ipynb" --engine spmd -f "$PARAMS")
  [ -z "${MODEL:-}" ] || WORDS+=(-p model "$MODEL")
  # A node that fails, or a queue that ends jobs without warning, costs no more than this.
  [ "$1" = local ] || grep -q '^checkpoint_' "$PARAMS" || WORDS+=(-p checkpoint_minutes 15)
}

# What train.sh does: one run of notebooks/01_train by the site's launcher. $1 is the script itself, $2
# the parameter file where PARAMS names none.
train() {
  local script=$1 site seed=() code=0
  site=$(basename "$(dirname "$script")")
  PARAMS=${PARAMS:-$2}
  RUN=${RUN:-runs/$site/${MODEL:-BNN_conv_flip}}
  # A job of an array is a repeat: its number is the seed.
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    RUN=$RUN-s$SLURM_ARRAY_TASK_ID
    seed=(-p seed "$SLURM_ARRAY_TASK_ID")
  fi
  run_words "$site"

  # The run saves itself and stops before this second, with exit code 75.
  export BNN_DEADLINE=${ENDS:-}

  "${LAUNCH[@]}" "${WORDS[@]}" "${seed[@]}" || code=$?

  # Where there is no queue, whoever stopped the run starts it again.
  [ "$code" -ne 75 ] || [ "$site" = local ] || resubmit "$script"
  exit "$code"
}

# What pack.sh does: the runs of the study file STUDY side by side, each on its own part of this job's
# nodes. $1 is the script itself. RUN is the job's own folder.
train_packed() {
  local script=$1 site code=0
  site=$(basename "$(dirname "$script")")
  RUNS=${RUNS:-runs}
  RUN=$RUNS/packed/$(basename "${STUDY:?a study file, such as STUDY=jobs/studies/sweep.yaml}" .yaml)
  export BNN_DEADLINE=${ENDS:-}
  python -m bnnlib pack "$STUDY" --runs "$RUNS" --site "$site" || code=$?
  [ "$code" -ne 75 ] || [ "$site" = local ] || resubmit "$script"
  exit "$code"
}

# What analysis.sh does: the runs of the group RUNS compared, as executed notebooks. $1 is the script
# itself, for the case that runs were stopped at their walltime and have new jobs by now: then it
# queues itself behind those. What follows launches a program on a compute node, where a job's
# script is not on one.
analyse() {
  local script=$1 waits job
  shift
  waits=$(unfinished "${RUNS:?the group of runs, such as RUNS=runs/sweep}")
  if [ -n "$waits" ]; then
    job=$(AFTER=$waits submit "$script")
    echo "$job" >"$RUNS/job"
    echo "$RUNS: waits for $waits as job $job"
    exit 0
  fi
  [ $# -gt 0 ] || set -- "${INSIDE[@]}"
  "$@" python -m bnnlib figures "$RUNS"
}
