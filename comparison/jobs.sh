# shellcheck shell=bash disable=SC2154,SC2329
# Runs side by side, for the scripts that compare: start NAME FUNCTION..., finished, share_cores. They set OUT and JOBS
# before, and seed before a start. Each run has its log, $OUT/seedS/NAME.log. Without a GPU the Python of all has its
# libraries imported already (tests/warm.py), since else most of the time would go into that.

finished() { # wait for all that runs, and name what failed
  local name status=0
  for name in "${!running[@]}"; do
    wait "${running[$name]}" || {
      status=1
      echo "${0##*/}: $name failed; the end of $OUT/$name.log:" >&2
      tail -n 5 "$OUT/$name.log" >&2
    }
  done
  running=()
  return $status
}

start() { # start NAME FUNCTION [ARGUMENT...]: in the background, when there is room
  local name=seed$seed/$1
  shift
  while (($(jobs -rp | wc -l) >= JOBS)); do wait -n || true; done # `finished` tells of failures
  (
    begun=$SECONDS
    "$@" >"$OUT/$name.log" 2>&1
    echo "$name took $((SECONDS - begun)) s"
  ) &
  running[$name]=$!
}

share_cores() { # share_cores COUNT: threads for so many runs at a time, or for JOBS if that is fewer
  local jobs=$(($1 < JOBS ? $1 : JOBS)) cores
  cores=$(nproc)
  export OMP_NUM_THREADS=$((cores > jobs ? cores / jobs : 1))
}

[[ $JOBS =~ ^[1-9][0-9]*$ ]] || {
  echo "${0##*/}: JOBS=$JOBS: a number of runs at a time" >&2
  exit 1
}
declare -A running
set -m # each job is a group of its own, which can be stopped whole
warm="" # the process that warm.py is
trap 'for pid in "${running[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done; wait; [[ -z $warm ]] || kill "$warm" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$OUT"
exec {lock}>"$OUT/.lock" # the runs have it, too: until the last one has ended
flock -n "$lock" || {
  echo "${0##*/}: $OUT: another comparison is at work there" >&2
  exit 1
}
if ! nvidia-smi -L >/dev/null 2>&1; then # a fork cannot be trusted with CUDA
  rm -f "$OUT/warm/bin/python"
  setpriv --pdeathsig TERM python tests/warm.py "$OUT/warm" >"$OUT/warm.log" 2>&1 {lock}>&- & # it ends with this script
  warm=$!
  disown "$warm"
  until [[ -x $OUT/warm/bin/python ]]; do
    kill -0 "$warm" 2>/dev/null || {
      tail -n 5 "$OUT/warm.log" >&2
      exit 1
    }
    sleep 0.2
  done
  VIRTUAL_ENV=$(realpath "$OUT/warm")
  export VIRTUAL_ENV PATH=$VIRTUAL_ENV/bin:$PATH
fi
