#!/usr/bin/env bash
# PBS Professional as ALCF runs it, for crux, polaris and aurora.
# shellcheck disable=SC2034  # what is set here, the scripts that source this file use
set -euo pipefail
source jobs/queue.sh

# In a job: its nodes, and when it will be killed (PBS tells the walltime only if asked).
if [ -n "${PBS_NODEFILE:-}" ]; then
  NODES=$(sort -u "$PBS_NODEFILE" | wc -l)
  WALLTIME=$(qstat -f "$PBS_JOBID" | sed -n 's/^ *Resource_List.walltime = //p')
  IFS=: read -r hours minutes seconds <<<"$WALLTIME"
  ENDS=$(($(date +%s) + 10#$hours * 3600 + 10#$minutes * 60 + 10#$seconds))
fi
NODES=${NODES:-1}
PROJECT=${PROJECT:-${PBS_ACCOUNT:-}}

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
      if (kind == "alone") why = wanted " takes one job a user, so that none there can queue another"
      else why = wanted == "" ? "no queue takes " job : wanted " does not take " job
      print site ": " why "; nearest: " nearest > "/dev/stderr"
      exit 1
    }' <<<"$QUEUES"
}

# submit SCRIPT: queues it and prints the job's id: in the job's own queue, where a job queues another.
# A directive of the script holds where no variable says otherwise.
submit() {
  local IFS=, options queue walltime
  need_project "$1" "qsub -A NAME" || return 1
  walltime=${WALLTIME:-$(sed -n 's/^#PBS -l walltime=//p' "$1")}
  queue=$(queue_for "$NODES" "$walltime" "${QUEUE:-${PBS_O_QUEUE:-}}") || return 1
  pass_on
  options=(-l "select=$NODES:system=$SYSTEM" -l "walltime=$walltime" -A "$PROJECT" -q "$queue"
    -v "${PASSED[*]}")
  [ -z "${AFTER:-}" ] || options+=(-W "depend=afterok:$AFTER")
  qsub "${options[@]}" "$1"
}

# job_state ID: prints queued (or running), gone, or unknown where the queue cannot be asked.
job_state() {
  local told
  if told=$(qstat "$1" 2>&1); then
    echo queued
  elif [[ $told == *"Unknown Job Id"* || $told == *"Job has finished"* ]]; then
    echo gone
  else
    echo unknown
  fi
}

# Compute nodes of ALCF reach the network by its proxy alone.
use_proxy() {
  export http_proxy=http://proxy.alcf.anl.gov:3128 https_proxy=http://proxy.alcf.anl.gov:3128
}
