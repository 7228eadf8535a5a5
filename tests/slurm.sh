#!/usr/bin/env bash
# The default recipe as a job of a real Slurm: a controller and two nodes of one CPU each, all on this machine. The job
# is stopped twice, in a training and in a generation, and has to go on. As root on Debian, with slurm-wlm and munge:
#
#   bash tests/slurm.sh [DIRECTORY]         its last output stands in tests/slurm.md
#
# Variables of run_loop.sh may be given, such as WORLD_OPTIONS or EVALS=none for a shorter run.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $EUID == 0 ]] || { echo "tests/slurm.sh: has to be root, to start the daemons" >&2; exit 1; }
command -v slurmctld munged >/dev/null || apt-get install -y slurm-wlm munge
# shellcheck source=setup.sh
source ./setup.sh
work=$(realpath "${1:-$(mktemp -d)}")
mkdir -p "$work"/{state,spooln1,spooln2,munge}
export OUT=${OUT:-$work/run} SLURM_CONF=$work/slurm.conf
host=$(hostname -s)
cat >"$SLURM_CONF" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CryptoType=crypto/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=30
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16818 CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16819 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
EOF
daemons=()
stop() {
  [[ -z ${job:-} ]] || scancel "$job" 2>/dev/null || true
  kill "${daemons[@]}" 2>/dev/null || true
  sleep 3
  kill -KILL "${daemons[@]}" 2>/dev/null || true # a slurmd may wait for a step
}
trap stop EXIT
dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
chmod 700 "$work/munge" && chmod 600 "$work/munge/key"
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
  --log-file="$work/munge/log" --seed-file="$work/munge/seed" &
daemons+=($!)
sleep 1
slurmctld -D >/dev/null 2>&1 &
daemons+=($!)
for node in n1 n2; do
  slurmd -D -N "$node" >/dev/null 2>&1 &
  daemons+=($!)
done
until [[ $(sinfo --noheader --format %T 2>/dev/null) == idle ]]; do sleep 1; done
sinfo

log=$work/job.log
job=$(sbatch --parsable --nodes=2 --output="$log" recipes/slurm/run_loop.sbatch)
echo "job $job, its output in $log"

restarts() { scontrol show job "$job" | sed -n 's/.* Restarts=\([0-9]*\) .*/\1/p'; }
stop_in() { # stop_in STEP LOG TEXT RESTARTS: once that step has said that; as the cluster does before the time is over
  until grep -q "^\[.*\] [0-9:]* $1: " "$log" 2>/dev/null && grep -q "$3" "$OUT/log/$2" 2>/dev/null; do
    [[ -n $(squeue --noheader --jobs "$job" 2>/dev/null) ]] || { tail -n 20 "$log"; exit 1; }
    sleep 0.5
  done
  scancel --batch --signal=TERM "$job"
  until [[ $(restarts) == "$4" ]]; do sleep 1; done
  echo "stopped in $1, and back in the queue, where Slurm leaves it for two minutes"
}
stop_in base base.log "'epoch': '0.3" 1 # in the training of the base model
saved=$(find "$OUT" -path "*base.partial*" -name "checkpoint-[0-9]*" -printf "%f ")
stop_in iter2/responses iter2/responses.0.log "prompts, .* tokens/s" 2 # in the generation of round 2
while [[ $(squeue --noheader --jobs "$job" --format %T 2>/dev/null) =~ PENDING|CONFIGURING|RUNNING|COMPLETING ]]; do
  sleep 5
done
state=$(scontrol show job "$job" | sed -n 's/.*JobState=\([A-Z]*\) .*/\1/p')
echo "job $job: $state, $(restarts) restarts"
grep -E "^\[[0-9]+ of [0-9]+\] .* took " "$log" | tail -n 200 >"$work/steps"
echo "$(wc -l <"$work/steps") steps; of the training of the base model were left: $saved"
echo "after which it began with: $(grep -m1 -o "{'loss.*" "$OUT/log/base.log")"
[[ $state == COMPLETED && -e $OUT/results.json ]] || { tail -n 20 "$log"; exit 1; }
sed -n '/^| policy/,/^$/p' "$OUT/report.md" | head -n 8
