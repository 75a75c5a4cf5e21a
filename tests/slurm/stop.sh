#!/usr/bin/env bash
# Stops what start.sh started, by process number, and takes its folder and links away.
ROOT=${SLURM_TEST_ROOT:?names the folder of the Slurm to stop}
export SLURM_CONF="$ROOT/etc/slurm.conf"
timeout 10 scancel --me >/dev/null 2>&1
sleep 1
for f in "$ROOT"/run/slurmd.*.pid "$ROOT"/run/slurmctld.pid "$ROOT"/run/munged.pid; do
  [ -s "$f" ] || continue
  p=$(cat "$f"); kill -TERM "$p" 2>/dev/null || { rm -f "$f"; continue; }
  for _ in $(seq 100); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
  kill -0 "$p" 2>/dev/null && echo "pid $p ($f) still there"
  rm -f "$f"
done
for f in slurm.conf gres.conf cgroup.conf plugstack.conf; do
  [ "$(readlink "/etc/slurm/$f")" = "$ROOT/etc/$f" ] && rm "/etc/slurm/$f"
done
rm -rf "$ROOT"
exit 0
