# shellcheck shell=bash disable=SC2154,SC2034,SC2178
# The beginning of a run: its environment, its lock, its settings.

say_what_is_set() { # variables of the environment: a shell may still carry some from an earlier export
  local name listing=""
  for name in "${!given[@]}"; do
    [[ $name =~ ^(FROM|TO|DRY_RUN)$ ]] || listing+=" $name=${given[$name]@Q}"
  done
  [[ -z $listing ]] || echo "From the environment:$listing"
}

start_run() { # environment, lock, settings
  export PYTHONUNBUFFERED=1 TQDM_DISABLE=1 # the logs get plain lines instead of bars
  export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$GRACE # of accelerate's launcher, which hands a SIGTERM on
  CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${gpus[*]:0:GPUS}") # a process that sees more would use them
  export CUDA_VISIBLE_DEVICES
  variables=() # for preflight checks, as they are given: the stages fill in some
  for name in "${SETTINGS[@]}"; do variables+=("$name=${!name}"); done
  settings=$(for name in "${SETTINGS[@]:0:results_depend_on}"; do
    printf '%s=%q\n' "$name" "${!name//"$OUT"\//\$OUT/}"
  done)
  [[ $DRY_RUN == no ]] || return 0
  set +f
  # shellcheck source=setup.sh
  source ./setup.sh
  set -f
  stop_with_this_script
  mkdir -p "$OUT/log"
  exec {lock}>"$OUT/.lock"
  flock -n "$lock" || die "$OUT: another run_loop.sh is at work there"
}

# A dry run installs nothing: sets `python` to an interpreter that has the packages, or to nothing.
find_python() {
  local requirements
  export PYTHONPATH=$PWD # this checkout's modules, whosever environment it is
  for python in "${VIRTUAL_ENV:-${CONDA_PREFIX:--}}/bin/python" .venv/bin/python python; do
    for requirements in requirements-cpu.txt requirements.txt; do
      if "$python" -I driver/packages.py "$requirements" >/dev/null 2>&1; then return 0; fi
    done
  done
  python=""
}

# Settings are frozen by what was made with them: a change that makes a file stale is refused, any other is named.
check_settings() {
  local line name i changed=()
  declare -A before=()
  [[ -e $OUT/settings ]] || return 0
  while IFS= read -r line; do
    name=${line%%=*}
    before[${renamed[$name]:-$name}]=${line#*=}
  done <"$OUT/settings"
  while IFS= read -r line; do # a variable that is new since has no value there
    name=${line%%=*}
    [[ ! -v before[$name] || ${before[$name]} == "${line#*=}" ]] || changed+=("$name=${before[$name]}, now ${line#*=}")
  done <<<"$settings"
  ((${#changed[@]})) || return 0
  for i in "${!states[@]}"; do
    [[ ! -v summaries[i] ]] || continue
    case ${states[i]} in
      "stale: command: "* | "fresh, without a record")
        die "$OUT: $(name_of "${step_files[i]%% *}") was made with other settings; give another OUT:$(printf '\n  %s' "${changed[@]}")"
        ;;
    esac
  done
  printf 'Changed, and nothing that is made depends on it: %s\n' "${changed[@]}"
}

keep_settings() { # once the first step begins: until then a wrong value can be put right
  [[ ! -e $OUT/settings || $(<"$OUT/settings") != "$settings" ]] || return 0
  echo "$settings" >"$OUT/settings.new" && mv "$OUT/settings.new" "$OUT/settings"
}

run_preflight() { # the rows and models of others, the hub, the disk, the GPUs: what would stop the run later
  local after="CHECK=no goes on without these checks" hours=()
  [[ $CHECK == yes ]] || after="mend what is named above"
  if [[ $DRY_RUN == no ]]; then
    rm -f "$OUT/log/budget" # of other settings, or another machine: the check may write none
    hours=(--hours_file "$OUT/log/budget")
  fi
  env "${variables[@]}" "$python" preflight/check.py "${hours[@]}" || die "$after"
}
