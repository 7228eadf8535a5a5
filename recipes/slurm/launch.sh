#!/usr/bin/env bash
# What srun starts on each node for a training: accelerate, with this node's rank and the first node's address. To stop
# it srun is sent SIGUSR1, which it hands on to every process; for a SIGTERM of its own it would kill them at once.
trap '' USR1 # inherited: of all of them only this script takes it
accelerate launch --machine_rank "$SLURM_NODEID" --main_process_ip "$SLURM_LAUNCH_NODE_IPADDR" "$@" &
launcher=$!
trap 'kill -TERM "$launcher"' USR1
trap : TERM # the launcher gets its own
while true; do # a signal ends `wait`, not the training
  status=0
  wait "$launcher" || status=$?
  kill -0 "$launcher" 2>/dev/null || exit "$status"
done
