# shellcheck shell=bash disable=SC2154,SC2034,SC2178
# How a step is run: in processes that end with this script, with a log and its seconds, its rows shared out over GPUs and
# nodes, the tiny world's judge beside it.

pids=()
servers=() # processes that live longer than a step
# shellcheck disable=SC2329 # the trap calls it
stop_children() {
  local ask=TERM
  keep_seconds || true
  ((NODES == 1)) || ask=USR1 # srun hands it on, see recipes/slurm/launch.sh
  for pid in "${pids[@]}"; do kill "-$ask" -- "-$pid" 2>/dev/null || true; done
  for pid in "${servers[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  pids+=("${servers[@]}")
  for ((i = 0; i < 10 * GRACE; i++)); do # trainings save their state
    ((i != 50)) || echo "run_loop.sh: waiting for what is still at work, at most $GRACE s" >&2
    for pid in "${pids[@]}"; do kill -0 -- "-$pid" 2>/dev/null && sleep 0.1 && continue 2; done
    return 0
  done
  for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}

# Of a step that is stopped: a later run that resumes it adds them. None of a finished one.
step_log="" step_seconds=0 step_began=0
# shellcheck disable=SC2329 # stop_children calls it
keep_seconds() { [[ -z $step_log ]] || echo "$((step_seconds + SECONDS - step_began))" >"$step_log.seconds.partial"; }

stop_with_this_script() { # what it has started ends with it
  trap stop_children EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

launch() { # launch LOG COMMAND...: in the background, in a session of its own that ends when this script is killed
  local log=$1
  shift
  printf '%s\n' "${*@Q}" >"$log"
  setsid setpriv --pdeathsig KILL "$@" >>"$log" 2>&1 &
  pids+=($!)
}

asks_judge() { # asks_judge I: does its command ask a judge that the world serves?
  local -n command=step_command_$1
  [[ -z $JUDGE_URL && " ${command[*]} " == *" --judge_model "* ]]
}

serve_judge() { # the world's own judge, before the first step that asks it
  local log=$OUT/log/judge.log world=$OUT/world judge
  if [[ -n ${servers[*]} ]]; then
    [[ $DRY_RUN == no ]] || return 0
    ! kill -0 "${servers[0]}" 2>/dev/null || return 0
    echo "The judge has died, see $log; it is started again, ${log%.log}.again.log"
    log=${log%.log}.again.log
  fi
  judge=("$WORLD/4_judge.py" --questions_files "$world/prompts.jsonl" "$world/evaluation.jsonl" "$world/preferences.jsonl"
    "$world/bench.jsonl")
  if [[ $DRY_RUN != no ]]; then
    printf '%q ' python "${judge[@]}"
    echo "& export OPENAI_BASE_URL=http://localhost:8000/v1 # the world's judge, until it is stopped"
    servers=(none)
    return 0
  fi
  rm -f "$OUT/judge.url"
  pids=()
  launch "$log" python "${judge[@]}" --port 0 --url_file "$OUT/judge.url"
  servers=("${pids[@]}")
  until [[ -e $OUT/judge.url ]]; do # a loaded machine may need a minute for its imports
    kill -0 "${servers[0]}" 2>/dev/null || die "the judge did not start, see $log"
    sleep 0.1
  done
  OPENAI_BASE_URL=$(<"$OUT/judge.url")
  export OPENAI_BASE_URL
}

# Sets `sharded`, the command of step I on its share of the rows, with the node and the GPUs of the shard.
shard_command() { # shard_command I SHARD
  local -n command=step_command_$1
  local shards=${step_shards[$1]} file=${step_files[$1]%% *} width first devices
  width=$((processes / shards)) # GPUs of a shard
  first=$(($2 * width))
  devices=$(IFS=, && echo "${gpus[*]:first % per_node:width}")
  sharded=(env "CUDA_VISIBLE_DEVICES=$devices" "${command[@]/#"$file"/"$file.$2-of-$shards"}" --shard "$2" --num_shards "$shards")
  ((NODES == 1)) || sharded=("${srun[@]}" --nodes=1 --ntasks=1 "--nodelist=${hosts[first / per_node]}" "${sharded[@]}")
}

state_of() { stat -c '%i %y' "$@" 2>/dev/null || true; } # state_of FILE...: another one after each has been written

run_step() { # run_step I WHY
  local i=$1 name log seconds files file before
  local -n command=step_command_$i
  local counter="[$((i + 1)) of ${#step_files[@]}]"
  read -ra files <<<"${step_files[i]}"
  name=$(name_of "${files[0]}") log=$OUT/log/$(name_of "${files[0]}")
  mkdir -p "$(dirname "$log")"
  echo "$counter $(date +%T) $name: $2"
  if asks_judge "$i"; then serve_judge; fi
  attempt=$(records begin "$i")
  step_began=$SECONDS step_seconds=0
  [[ $attempt != resume || ! -s $log.seconds.partial ]] || step_seconds=$(<"$log.seconds.partial")
  step_log=$log
  pids=()
  before=$(state_of "${files[@]}")
  if ((step_shards[i] == 1)); then
    launch "$log.log" "${command[@]}"
    wait_for "$name" "${pids[0]}" "$log.log"
  else
    run_shards "$i" "$name" "$log"
  fi
  pids=()
  for file in "${files[@]}"; do
    [[ -e $file ]] || die "$name: the step left no $file, see the log in $OUT/log"
  done
  if [[ ${command[1]-} == *.py && " ${PAIRING-} ${annotators[*]-} " == *" ${command[1]} "* ]]; then # a script of the user's
    [[ -z $before || $before != "$(state_of "${files[@]}")" ]] ||
      die "$name: ${command[1]} has not written ${files[0]}, see $log.log"
  fi
  records end "$i" || die "$name: cannot write its record"
  seconds=$((step_seconds + SECONDS - step_began)) step_log=""
  { echo "$seconds" >"$log.seconds.new" && mv "$log.seconds.new" "$log.seconds" && rm -f "$log.seconds.partial"; } ||
    die "cannot write into $OUT/log; to go on, give the same command again"
  echo "$counter $name took $seconds s$(time_left "$i")"
}

run_shards() { # run_shards I NAME LOG: each a process; one that fails is started once more
  local i=$1 name=$2 log=$3 shards=${step_shards[$1]} file=${step_files[$1]%% *} shard running=() status
  [[ $attempt == resume ]] || remove_shards "$file" # of other inputs
  for ((shard = 0; shard < shards; shard++)); do
    [[ ! -e $file.$shard-of-$shards ]] || continue # whole, from a run that was stopped
    shard_command "$i" "$shard"
    launch "$log.$shard.log" "${sharded[@]}"
    running+=("$shard")
  done
  local started=("${pids[@]}") i_started
  for i_started in "${!running[@]}"; do # each by its own pid: a bare wait would hide a failure
    shard=${running[i_started]} status=0
    wait "${started[i_started]}" || status=$?
    ((status)) || continue
    if ((status != 143)); then
      echo "$name: shard $shard of $shards failed; once more, $log.$shard.again.log"
      shard_command "$i" "$shard"
      launch "$log.$shard.again.log" "${sharded[@]}"
      wait_for "$name, shard $shard of $shards," "${pids[-1]}" "$log.$shard.again.log"
    else
      stopped "$name"
    fi
  done
  python common/shards.py "${step_order[i]}" "$file" "$shards" ||
    die "$name: its shards do not join, see above; to go on, give the same command again"
  remove_shards "$file"
}

remove_shards() { # remove_shards FILE: whole ones, of any number of processes
  find "$(dirname "$1")" -maxdepth 1 -name "$(basename "$1").*-of-*" ! -name '*.partial-*' -delete
}

wait_for() { # wait_for NAME PID LOG: until it has ended; its failure is told and ends the run
  local status=0 step=${1%%,*}
  wait "$2" || status=$?
  ((status)) || return 0
  ((status != 143)) || stopped "$step"
  echo "run_loop.sh: $1 failed; the end of $3:" >&2
  tail -n 5 "$3" >&2
  (($(df -Pk "$OUT" | awk 'END {print $4}') > 1024)) || echo "No space is left on the disk of $OUT." >&2
  die "to go on, give the same command again${FROM:+ without FROM}${TO:+ without TO}; for this step alone: $(given_again)FROM=$step TO=$step bash run_loop.sh"
}

stopped() { # stopped NAME: by a SIGTERM, as a cluster does that needs the machine
  echo "run_loop.sh: $1 was stopped by a SIGTERM; to go on, give the same command again" >&2
  exit 143
}

given_again() { # what the caller set, for a command that repeats it
  local name
  for name in "${SETTINGS[@]}"; do
    [[ ! -v given[$name] || $name =~ ^(FROM|TO)$ ]] || printf '%s=%q ' "$name" "${given[$name]}"
  done
}

# After step I: by what steps of the same kind took in this run, or by the budget's hours if none has run yet.
time_left() { # time_left I
  local i name kind seconds left=0 bound=about
  declare -A took=()
  [[ ! -e $OUT/log/budget ]] || while read -r kind seconds; do took[$kind]=$seconds; done <"$OUT/log/budget"
  for ((i = 0; i <= last; i++)); do
    name=$(name_of "${step_files[i]%% *}") kind=$name
    [[ ! $name =~ ^(iter|eval)[^/]*/([^/]+/)?([^/]+)$ ]] || kind=${BASH_REMATCH[1]}/${BASH_REMATCH[3]}
    if ((i <= $1)); then
      [[ ! -e $OUT/log/$name.seconds ]] || took[$kind]=$(<"$OUT/log/$name.seconds")
    elif [[ ${states[i]} != fresh* || -n $FROM$TO ]]; then
      seconds=${took[$kind]:-}
      [[ -n $seconds ]] || seconds=$(cat "$OUT/log/$name.seconds" 2>/dev/null) || bound="at least"
      left=$((left + ${seconds:-0}))
    fi
  done
  ((left == 0)) || echo ", $bound $((left / 60 + 1)) min left"
}
