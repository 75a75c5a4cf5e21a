#!/usr/bin/env bash
# Installs (Debian or Ubuntu) and starts a throw-away Slurm on this machine: as root, without systemd, with ports, a key and
# a folder of its own. Outside of that folder it leaves packages, and links in /etc/slurm that stop.sh takes away.
#   NODES, CPUS, MEM_MB, GPUS   virtual nodes and what each declares; may exceed the machine
#   CGROUP=1                    limits and kills by control groups (version 1), as sites do; 0 = by looking at processes
set -euo pipefail
ROOT=${SLURM_TEST_ROOT:?names the folder of this Slurm}
NODES=${NODES:-2}; CPUS=${CPUS:-8}; MEM_MB=${MEM_MB:-8000}; GPUS=${GPUS:-2}
CGROUP=${CGROUP:-0}
for f in /etc/slurm/slurm.conf /etc/slurm-llnl/slurm.conf; do
  if [ -e "$f" ] && ! [ -L "$f" ]; then echo "$f exists: this machine belongs to a cluster" >&2; exit 3; fi
done
HOST=$(hostname -s)
mkdir -p /etc/slurm "$ROOT"/{etc,run,log,state,spool,dev}
export SLURM_CONF="$ROOT/etc/slurm.conf"

alive() { local p; p=$(cat "$1" 2>/dev/null) || return 1; [ -n "$p" ] && kill -0 "$p" 2>/dev/null; }
wait_for() { local n=$1; shift; for _ in $(seq "$((n*10))"); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }

# ---- 1. packages -------------------------------------------------------------------------
pkgs=(munge slurmctld slurmd slurm-client)
missing=(); for p in "${pkgs[@]}"; do dpkg -s "$p" >/dev/null 2>&1 || missing+=("$p"); done
if [ ${#missing[@]} -gt 0 ]; then
  # no service may start from the packages' own scripts (no systemd here)
  created_policy=0
  [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; created_policy=1; }
  apt-get update -q >"$ROOT/log/apt.log" 2>&1
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >>"$ROOT/log/apt.log" 2>&1
  [ "$created_policy" = 1 ] && rm -f /usr/sbin/policy-rc.d
fi

# ---- 2. munge (own key, socket and pid: does not touch /etc/munge) ---------------------------
MSOCK="$ROOT/run/munge.socket"
[ -s "$ROOT/etc/munge.key" ] || { (umask 077; head -c 1024 /dev/urandom >"$ROOT/etc/munge.key"); }
chmod 700 "$ROOT/etc" 2>/dev/null; chmod 755 "$ROOT" "$ROOT/run" "$ROOT/log"
if ! alive "$ROOT/run/munged.pid"; then
  rm -f "$MSOCK" "$MSOCK.lock"
  # --force: warnings instead of errors about /tmp ownership and running as root
  munged --force --key-file="$ROOT/etc/munge.key" --socket="$MSOCK" --pid-file="$ROOT/run/munged.pid" \
         --log-file="$ROOT/log/munged.log" --seed-file="$ROOT/run/munged.seed" --num-threads=2 2>>"$ROOT/log/munged.err"
fi
wait_for 5 munge -n --socket="$MSOCK"

# ---- 3. config ---------------------------------------------------------------------------
nodes_re="n[1-$NODES]"; [ "$NODES" = 1 ] && nodes_re=n1
if [ "$CGROUP" = 1 ]; then
  proc="ProctrackType=proctrack/cgroup"; task="TaskPlugin=task/cgroup"; gather=jobacct_gather/cgroup; gparams=""
  cat >"$ROOT/etc/cgroup.conf" <<C
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
C
else
  proc="ProctrackType=proctrack/linuxproc"; task="TaskPlugin=task/none"; gather=jobacct_gather/linux; gparams="JobAcctGatherParams=OverMemoryKill"
  rm -f "$ROOT/etc/cgroup.conf"
fi
cat >"$ROOT/etc/slurm.conf.new" <<C
ClusterName=testcluster
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$MSOCK,cred_expire=5
CredType=cred/munge
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd.%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
PlugStackConfig=$ROOT/etc/plugstack.conf
MpiDefault=none
SwitchType=switch/none
$proc
$task
JobAcctGatherType=$gather
JobAcctGatherFrequency=task=1
$gparams
# speed: react in about a second
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=100000,batch_sched_delay=1,requeue_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
OverTimeLimit=0
InactiveLimit=0
Waittime=0
SlurmctldTimeout=30
SlurmdTimeout=30
MinJobAge=3600
MaxJobCount=50000
MaxArraySize=10001
GresTypes=gpu
PropagateResourceLimits=NONE
PropagatePrioProcess=0
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
$(for i in $(seq "$NODES"); do echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((16900+i)) CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM_MB Gres=gpu:$GPUS State=UNKNOWN"; done)
PartitionName=cpu Nodes=$nodes_re Default=YES MaxTime=7-00:00:00 DefaultTime=60 DefMemPerCPU=500 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Nodes=$nodes_re MaxTime=2-00:00:00 DefaultTime=60 DefMemPerCPU=500 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=scavenge Nodes=$nodes_re MaxTime=1-00:00:00 DefaultTime=60 DefMemPerCPU=500 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
C
: >"$ROOT/etc/plugstack.conf"
# emulated GPUs: gres.conf wants existing files; character devices cloned from /dev/null do
{ for n in $(seq "$NODES"); do for g in $(seq 0 $((GPUS-1))); do
    f="$ROOT/dev/fakegpu$g"; [ -e "$f" ] || mknod "$f" c 1 3 2>/dev/null || : >"$f"; done
    if [ "$GPUS" -gt 1 ]; then echo "NodeName=n$n Name=gpu File=$ROOT/dev/fakegpu[0-$((GPUS-1))]"
    elif [ "$GPUS" = 1 ]; then echo "NodeName=n$n Name=gpu File=$ROOT/dev/fakegpu0"; fi; done; } >"$ROOT/etc/gres.conf"
mv "$ROOT/etc/slurm.conf.new" "$ROOT/etc/slurm.conf"; chmod 755 "$ROOT/etc"; chmod 644 "$ROOT/etc/slurm.conf" "$ROOT/etc/gres.conf"; chmod 600 "$ROOT/etc/munge.key"

# snakemake-executor-plugin-slurm-jobstep drops every SLURM_* variable (SLURM_CONF too) before its
# inner srun, so the default place must point at our files as well
for f in slurm.conf gres.conf cgroup.conf plugstack.conf; do
  if [ -e "$ROOT/etc/$f" ]; then ln -sfn "$ROOT/etc/$f" "/etc/slurm/$f"; elif [ -L "/etc/slurm/$f" ]; then rm -f "/etc/slurm/$f"; fi; done

# ---- 4. daemons --------------------------------------------------------------------------
alive "$ROOT/run/slurmctld.pid" || slurmctld
for i in $(seq "$NODES"); do mkdir -p "$ROOT/spool/n$i"; alive "$ROOT/run/slurmd.n$i.pid" || slurmd -N "n$i"; done
wait_for 20 scontrol ping
idle() { [ "$(sinfo -h -N -p cpu -t idle,mix,alloc -o %N | wc -l)" -ge "$NODES" ]; }
wait_for 30 idle || { sinfo -N -l; scontrol show node | grep -i reason; exit 1; }
sinfo
