# shellcheck shell=bash disable=SC2154,SC2034,SC2178
# The list of steps. The stages make it; then run_steps runs those whose files are missing or not what their command would
# make (driver/records.py), in order, or says what would be run.

die() {
  echo "run_loop.sh: $*" >&2
  exit 1
}

# The list of steps: files that it makes, command, processes that share its rows, and the file whose rows they are.
step_files=() step_shards=() step_order=()
shards=1
order=""
summaries=() # indexes of steps that sum up what others have made: other settings may make them again

step() { # step "FILE..." COMMAND...: list a step, which makes these files by that command
  local i=${#step_files[@]}
  step_files+=("$1") step_shards+=("$shards") step_order+=("$order")
  declare -ga "step_command_$i=()"
  local -n command=step_command_$i
  command=("${@:2}")
}

summarise() { # summarise "FILE..." COMMAND...: such a step
  summaries[${#step_files[@]}]=yes
  step "$@"
}

conditions=() # {number: index of the step that it precedes}
condition() { # condition FILE COMMAND...: what has to hold before the next step is run, while FILE is not there
  local i=${#conditions[@]}
  conditions+=("${#step_files[@]}")
  declare -ga "condition_command_$i=()"
  local -n command=condition_command_$i
  command=("$@")
}

check_conditions() { # check_conditions I: those that were listed before step I, once each
  local i problem
  for i in "${!conditions[@]}"; do
    ((conditions[i] <= $1)) || continue
    local -n command=condition_command_$i
    if [[ -z $FROM$TO && ! -e ${command[0]} ]]; then
      problem=$("${command[@]:1}" 2>&1) ||
        die "$(tail -n 1 <<<"$problem"); ITERATIONS=$ITERATIONS, PROMPTS_PER_ITERATION=$PROMPTS_PER_ITERATION"
    fi
    unset "conditions[i]"
  done
}

name_of() { # name_of FILE: iter2/pairs, for what FROM, TO, the logs and the messages call $OUT/iter2/pairs.jsonl
  local name=${1#"$OUT"/} last
  last=${name##*/}
  [[ $last != *.* ]] || name=${name%.*}
  echo "$name"
}

write_steps() { # write_steps I...: the steps for records.py and arguments.py
  local i files
  for i in "$@"; do
    local -n command=step_command_$i
    read -ra files <<<"${step_files[i]}"
    printf '%s\0' "${#files[@]}" "${files[@]}" "${#command[@]}" "${command[@]}"
  done
}

records() { # records USE I...: what driver/records.py says of these steps, or does
  write_steps "${@:2}" | "$plain_python" -B -E -s driver/records.py "$1" "$OUT" ${WORLD:+--judge "$WORLD/4_judge.py"}
}

# Which steps

find_range() { # sets `first` and `last`, the indexes in the list that FROM and TO name
  first=0 last=$((${#step_files[@]} - 1))
  [[ -z $FROM ]] || first=$(index_of FROM)
  [[ -z $TO ]] || last=$(index_of TO last)
  ((first <= last)) || die "FROM=$FROM TO=$TO: the second comes before the first"
}

# What the numbers of an earlier version stand for: the ten is the iteration.
numbered=(world/evaluation prompts responses rewards "pairs best" policy answers rewards true_rewards kl)
numbered_first=(world/evaluation base instructions sft preferences reward_model answers rewards true_rewards kl)

index_of() { # index_of FROM|TO [last]: the index of the step that makes the file which the variable names
  local text=${!1} wanted=() i file index="" t digit folder
  text=${text#"$OUT"/}
  text=${text%/}
  if is_whole "$text"; then
    t=$((text / 10)) digit=$((text % 10)) folder=iter$((text / 10))/
    ((digit < 6)) || folder=eval/iter$t/
    ((t)) || folder=""
    ((t || digit < 6)) || folder=eval/sft/
    read -ra wanted <<<"${numbered[digit]}"
    ((t)) || wanted=("${numbered_first[digit]}")
    wanted=("${wanted[@]/#/$folder}")
  else
    wanted=("$text" "$(name_of "$OUT/$text")")
  fi
  for i in "${!step_files[@]}"; do
    for file in ${step_files[i]}; do
      if [[ " ${wanted[*]} " == *" $(name_of "$file") "* && (-z $index || ${2:-} == last) ]]; then index=$i; fi
    done
  done
  [[ -n $index ]] || die "$1=${!1}: no such step; DRY_RUN=steps lists all, such as iter1/responses"
  echo "$index"
}

run_steps() { # run what has to be run, or say what would be
  local i reason listed
  find_range
  listed=$(records states "${!step_files[@]}") || exit 1
  mapfile -t states <<<"$listed"
  check_settings
  if [[ $DRY_RUN != no ]]; then
    show_steps
    return
  fi
  records adopt "${!step_files[@]}"
  local todo=()
  for ((i = first; i <= last; i++)); do
    [[ -z $FROM$TO && ${states[i]} == fresh* ]] || todo+=("$i")
  done
  if ((${#todo[@]} == 0)); then
    echo "All is up to date: $OUT/report.md, $OUT/report.html, $OUT/results.json"
    return
  fi
  say_what_is_set
  python=python
  run_preflight
  check_arguments
  keep_settings
  for ((i = first; i <= last; i++)); do
    reason="as FROM and TO say"
    if [[ -z $FROM$TO ]]; then
      reason=$(records states "$i")
      [[ $reason != fresh* ]] || continue
    fi
    check_conditions "$i"
    run_step "$i" "$reason"
  done
  if [[ -z $FROM$TO && -e $OUT/log/results.log ]]; then sed 1d "$OUT/log/results.log"; fi # the report's table
}

show_steps() { # the dry run
  local i name reason
  for ((i = first; i <= last; i++)); do
    name=$(name_of "${step_files[i]%% *}") reason=${states[i]}
    [[ -z $FROM$TO ]] || reason="as FROM and TO say"
    if [[ $DRY_RUN == steps ]]; then
      printf '%-40s %s\n' "$name" "$reason"
    else
      show_commands "$i" "$name ($reason)"
    fi
  done
  [[ $DRY_RUN == yes && $CHECK == yes ]] || return 0
  find_python
  if [[ -z $python ]]; then
    echo "# not checked: no environment here, source ./setup.sh makes one"
    return 0
  fi
  run_preflight
  check_arguments
}

# Does the script of each step take its flags? It takes seconds: what has passed is kept in .checked, by all that the answer
# depends on.
check_arguments() {
  local judge=${OPENAI_BASE_URL:-} asked
  asked=$({
    write_steps "${!step_files[@]}"
    records code "${!step_files[@]}"
    cat driver/arguments.py requirements.txt requirements-cpu.txt # the libraries add flags of their own
  } | sha256sum)
  [[ ! -e $OUT/.checked || $(<"$OUT/.checked") != "$asked" ]] || return 0
  [[ -n $judge || -z $WORLD ]] || judge=http://localhost # the world's own, which is not served yet
  write_steps "${!step_files[@]}" | OPENAI_BASE_URL=$judge "$python" driver/arguments.py ||
    die "mend what is named above; nothing was run"
  [[ $DRY_RUN != no ]] || echo "$asked" >"$OUT/.checked"
}

show_commands() { # show_commands I COMMENT: a step's command, ready to paste; of shards one each, and what joins them
  local -n command=step_command_$1
  local shards=${step_shards[$1]} shard file=${step_files[$1]%% *}
  if asks_judge "$1"; then serve_judge; fi
  if ((shards == 1)); then
    printf '%q ' "${command[@]}"
    echo " # $2"
    return
  fi
  for ((shard = 0; shard < shards; shard++)); do
    shard_command "$1" "$shard"
    printf '%q ' "${sharded[@]}"
    echo " # $2, shard $shard"
  done
  printf '%q ' python common/shards.py "${step_order[$1]}" "$file" "$shards"
  echo " # $2"
}
