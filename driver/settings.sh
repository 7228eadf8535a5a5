# shellcheck shell=bash disable=SC2015,SC2034,SC2046
# How the variables of variables.sh get their values, and whether a value can be.

declare -A given=() # {name: value} of the environment
declare -A set_by=() # {name: who set it}: the environment, a recipe, an optimiser's file

read_settings() { # from the environment, the recipes, the optimiser's files and the defaults, in this order
  local name
  find_plain_python
  refuse_old_names
  for name in "${SETTINGS[@]}"; do
    ! is_blank "${!name:-}" || continue
    # A list may stand on several lines, a text keeps its own.
    [[ $name =~ ^(VERIFIER_PATTERN|DIRECTION_PROMPT)$ ]] || printf -v "$name" %s "${!name//$'\n'/ }"
    given[$name]=${!name} set_by[$name]=environment
  done
  read_recipes
  read_optimisers
  for name in "${SETTINGS[@]}"; do
    [[ -v set_by[$name] ]] || printf -v "$name" %s "${default_of[$name]}"
  done
  [[ -n $GPUS ]] || count_gpus
  case ${DRY_RUN,,} in # as a person would type it
    1 | true) DRY_RUN=yes ;;
    0 | false) DRY_RUN=no ;;
  esac
  [[ ! $PAIRING =~ ^(offline|self_play|uncertain)$ ]] || die "PAIRING=$PAIRING: now OPTIMISER=$PAIRING"
  for name in "${SETTINGS[@]}"; do check_value "$name"; done
}

count_gpus() { # those that CUDA_VISIBLE_DEVICES leaves, or all of this machine
  local visible
  if [[ -v CUDA_VISIBLE_DEVICES ]]; then
    GPUS=,$CUDA_VISIBLE_DEVICES
    GPUS=${GPUS%%,-*} # none from -1 on; the name of a GPU may hold a dash
    IFS=, read -ra visible <<<"${GPUS#,}"
    GPUS=${#visible[@]}
  else
    GPUS=$({ nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU ' || true)
  fi
}

is_setting() { [[ -v default_of[$1] ]]; }

is_blank() { [[ $1 =~ ^[[:space:]]*$ ]]; }

refuse_old_names() { # names of an earlier version, and misspelt ones, in the environment
  local name
  for name in "${!renamed[@]}"; do
    [[ ! -v $name ]] || die "$name: now ${renamed[$name]}"
  done
  name=$("$plain_python" -I driver/misspelt.py "${SETTINGS[@]}") || die "$name"
}

# Sets `plain_python` to one without packages, for the driver's own files: a dry run may have no other. They run from 3.10 on.
find_plain_python() {
  for plain_python in "${VIRTUAL_ENV:-${CONDA_PREFIX:--}}/bin/python" .venv/bin/python python3 python3.11 python3.12; do
    if "$plain_python" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then return 0; fi
  done
  die "no Python 3.11 or 3.12: none in an active environment, in .venv or on PATH"
}

read_recipes() {
  local recipe recipes
  [[ -v set_by[RECIPE] ]] || RECIPE=${default_of[RECIPE]}
  set_by[RECIPE]=${set_by[RECIPE]:-default}
  read -ra recipes <<<"$RECIPE"
  for recipe in "${recipes[@]}"; do
    [[ -f $recipe ]] || die "$recipe: no such recipe"
  done
  default_of[OUT]=runs/$(basename "${recipes[0]}" .sh)
  for recipe in "${recipes[@]}"; do
    read_recipe "$recipe"
    [[ -v set_by[OUT] ]] || { OUT=${default_of[OUT]} && set_by[OUT]=default; } # before another recipe sets it
  done
}

read_recipe() { # read_recipe FILE: lines NAME=value, which are read and not run; a variable that is set keeps its value
  local number=0 line name
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    [[ ! $line =~ ^[[:space:]]*(#.*)?$ ]] || continue
    [[ $line =~ ^([A-Z_][A-Z_0-9]*)=(.*)$ ]] || die "$1:$number: not of the form NAME=value"
    name=${BASH_REMATCH[1]}
    [[ ! -v renamed[$name] ]] || die "$1:$number: $name: now ${renamed[$name]}"
    is_setting "$name" || die "$1:$number: $name: run_loop.sh has no such variable"
    read_value "${BASH_REMATCH[2]}" || die "$1:$number: $name: not a value: a word, or a text in quotes, with \$NAME of known variables"
    if [[ ! -v set_by[$name] ]] && ! is_blank "$value"; then
      printf -v "$name" %s "$value"
      set_by[$name]=$1
    fi
  done <"$1"
}

read_value() { # read_value TEXT: sets `value`, as a shell would read TEXT after NAME=, but nothing is run
  local comment='[[:space:]]*([[:space:]]#.*)?$'
  local single="^'([^']*)'$comment"
  local double='^"((\\.|[^"\\])*)"'$comment
  # shellcheck disable=SC2016 # patterns
  local word='^(([A-Za-z0-9_./:,@%+=~{}-]|\$)*)'$comment
  if [[ $1 =~ $single ]]; then
    value=${BASH_REMATCH[1]}
  elif [[ $1 =~ $double ]]; then
    expand "${BASH_REMATCH[1]}"
  elif [[ $1 =~ $word ]]; then
    expand "${BASH_REMATCH[1]/#\~\//$HOME/}"
  else
    return 1
  fi
}

expand() { # expand TEXT: sets `value`, TEXT with its $NAME, ${NAME} and ${NAME:-TEXT} replaced by settings or the environment
  local rest=$1 made="" name default
  # shellcheck disable=SC2016 # patterns
  local plain='^[^\$`]+' \
    escaped='^\\[$`"\\]' \
    variable='^\$([A-Z_][A-Z_0-9]*)' \
    in_braces='^\$\{([A-Z_][A-Z_0-9]*)(:-([^{}]*))?\}'
  while [[ -n $rest ]]; do
    if [[ $rest =~ $plain ]]; then
      made+=${BASH_REMATCH[0]}
    elif [[ $rest =~ $escaped ]]; then
      made+=${BASH_REMATCH[0]:1}
    elif [[ $rest =~ ^\\ ]]; then # before any other character it stands for itself
      made+=${BASH_REMATCH[0]}
    elif [[ $rest =~ $in_braces || $rest =~ $variable ]]; then
      name=${BASH_REMATCH[1]} default=${BASH_REMATCH[3]:-}
      rest=${rest:${#BASH_REMATCH[0]}}
      value=${!name:-}
      if [[ -z $value && -n ${BASH_REMATCH[2]:-} ]]; then
        expand "$default" || return 1
      elif [[ -z $value ]] && is_setting "$name"; then
        value=${default_of[$name]}
      elif [[ -z $value && ! -v $name ]]; then
        return 1
      fi
      made+=$value
      continue
    else # a command whose output would be the value, or the end of the text
      return 1
    fi
    rest=${rest:${#BASH_REMATCH[0]}}
  done
  value=$made
}

optimiser_file() { # optimiser_file NAME: sets `file`, one's own or one of driver/optimisers
  file=driver/optimisers/$1.sh
  [[ $1 != */* && $1 != *.sh ]] || file=$1
}

read_optimisers() { # each file redefines the stages in which it differs, and may give defaults and conditions
  local name file before stage
  declare -A stages=() redefined_by=()
  for stage in $(compgen -A function); do stages[$stage]=$(declare -f "$stage"); done
  [[ -v set_by[OPTIMISER] ]] || OPTIMISER=${default_of[OPTIMISER]}
  read -ra optimisers <<<"$OPTIMISER"
  for name in "${optimisers[@]}"; do
    optimiser_file "$name"
    [[ -f $file ]] ||
      die "OPTIMISER=$name: no such file; there are $(basename -as .sh $(find driver/optimisers -name '*.sh' | sort) | tr '\n' ' ')and one's own FILE.sh"
    bash -n "$file" 2>/dev/null || die "$file: $(bash -n "$file" 2>&1 | head -n 1)"
    before=$(declare -f)$declared
    optimiser=$name
    # shellcheck disable=SC1090
    source "$file"
    [[ $name == dpo || $before != "$(declare -f)$declared" ]] ||
      die "$file: it redefines no stage of driver/stages.sh and sets no default"
    for stage in "${!stages[@]}"; do
      [[ ${stages[$stage]} != "$(declare -f "$stage")" ]] || continue
      [[ ! -v redefined_by[$stage] ]] || die "OPTIMISER=$OPTIMISER: ${redefined_by[$stage]} and $name both redefine $stage"
      redefined_by[$stage]=$name stages[$stage]=$(declare -f "$stage")
    done
  done
}

declared=0 # calls of `default`
default() { # default NAME VALUE: in an optimiser's file, the value where neither the environment nor a recipe gives one
  declared=$((declared + 1))
  is_setting "$1" || die "$file: $1: run_loop.sh has no such variable"
  if [[ ! -v set_by[$1] ]]; then
    printf -v "$1" %s "$2"
    set_by[$1]=$file
  fi
}

ignores() { # ignores NAME...: in an optimiser's file, variables without effect, which the environment may not give
  local name
  for name in "$@"; do
    [[ ! -v given[$name] ]] || die "$name=${!name}: without effect with OPTIMISER=$optimiser"
  done
}

check_value() { # check_value NAME: is its value one of its kind?
  local name=$1 value=${!1} kind words word
  read -ra words <<<"${kind_of[$name]}"
  [[ -n ${words[*]} && -n $value ]] || return 0
  kind=${words[0]}
  case $kind in
    whole) is_whole "$value" || die "$name=$value: a whole number is needed" ;;
    count) is_whole "$value" && [[ $value != 0 ]] || die "$name=$value: a whole number above 0 is needed" ;;
    number) is_number "$value" || die "$name=$value: a number is needed" ;;
    real) is_number "${value#-}" || die "$name=$value: a number is needed" ;;
    numbers)
      for word in $value; do is_number "$word" || die "$name=$value: not numbers"; done
      ;;
    some)
      [[ " $value " != *" none "* || $value == none ]] || die "$name=$value: none, or others"
      for word in $value; do
        is_allowed "$word" "${words[@]:1}" || die "$name=$value: one or several of ${words[*]:1}"
      done
      ;;
    *) is_allowed "$value" "${words[@]}" || die "$name=$value: one of ${words[*]}" ;;
  esac
}

# A pattern before any arithmetic of bash, which would run a $(...) in a text.
is_whole() { [[ $1 =~ ^(0|[1-9][0-9]{0,11})$ ]]; }
is_number() { [[ $1 =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$ ]]; }

is_allowed() { # is_allowed WORD ALLOWED...: FILE.py allows a script of one's own
  local word=$1 allowed
  shift
  for allowed in "$@"; do
    [[ $word != "$allowed" || $word == FILE.* ]] || return 0
    [[ $allowed != FILE.py || $word != *.py ]] || return 0
  done
  return 1
}

is_own() { [[ $1 == *.py ]]; } # a script that the user has written, in place of a name
