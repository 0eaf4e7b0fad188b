#!/usr/bin/env bash
# A Slurm of one node on this machine, for tests and for a try:
#
#   tests/slurm/cluster.sh start FOLDER && export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm/cluster.sh stop FOLDER
#
# Its own munge, ports and state lie in FOLDER; a Slurm that is installed here is not touched. Needs
# Debian's munge, slurmctld, slurmd and slurm-client (sbatch), and no root, though it may be root.
set -euo pipefail
folder=${2:?cluster.sh start|stop FOLDER}
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

case $1 in
start)
  mkdir -p "$folder"/{state,spool,munge}
  chmod 700 "$folder/munge"
  dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
  chmod 600 "$folder/munge/key"
  # munge's socket must have a short path. --force: FOLDER may lie in /tmp.
  munged --force --socket="$folder/munge/socket" --key-file="$folder/munge/key" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
  cat >"$SLURM_CONF" <<END
ClusterName=onenode
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
# As a site with an MPICH has it; srun is told nothing.
MpiDefault=pmi2
# Without cgroups and binding, which a container does not allow.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
# Tests do not wait for a scheduler that looks after thousands of jobs.
SchedulerParameters=sched_interval=5,sched_min_interval=100000,batch_sched_delay=0
InactiveLimit=0
KillWait=10
MinJobAge=300
ReturnToService=2
# Room for two ranks, one job after another, whatever the machine has.
SlurmdParameters=config_overrides
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 Feature=cpu State=UNKNOWN
PartitionName=test Nodes=$(hostname -s) Default=YES MaxTime=01:00:00 State=UP
END
  slurmctld
  slurmd
  for _ in $(seq 100); do
    [ "$(sinfo -h -o %T 2>/dev/null)" != idle ] || exit 0
    sleep 0.2
  done
  echo "Slurm has not come up within 20 s: see $folder/slurmctld.log and slurmd.log" >&2
  tail -n 5 "$folder"/*.log >&2
  exit 1
  ;;
stop)
  # Jobs first: a job's own daemon outlives slurmd.
  scancel --full --user="$(id -un)" 2>/dev/null || true
  for _ in $(seq 150); do
    [ -n "$(squeue -h 2>/dev/null)" ] || break
    sleep 0.2
  done
  for pid in "$folder"/slurmd.pid "$folder"/slurmctld.pid "$folder"/munge/pid; do
    [ -f "$pid" ] || continue
    process=$(cat "$pid")
    kill "$process" 2>/dev/null || continue
    # One after another: slurmd waits for the other two when it ends. At most 5 s, then at once.
    for _ in $(seq 50); do
      kill -0 "$process" 2>/dev/null || continue 2
      sleep 0.1
    done
    kill -KILL "$process" 2>/dev/null || true
  done
  ;;
esac
