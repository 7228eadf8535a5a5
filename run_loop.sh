#!/usr/bin/env bash
# Online iterative RLHF (arXiv 2405.07863): data, fine-tuning, reward models, ITERATIONS x (prompts, responses,
# rewards, pairs, DPO), an evaluation of every policy, measures of the reward models, benchmarks, a report.
#
#   bash run_loop.sh                                    the default recipe, recipes/tiny.sh
#   RECIPE=recipes/my.sh N=4 bash run_loop.sh           another recipe; a variable from the environment wins over it
#   RECIPE="recipes/optimisers/kto.sh recipes/tiny.sh"  of several the first that sets a variable wins
#   FROM=22 TO=24 bash run_loop.sh                      run these steps again: 2 to 4 of iteration 2
#   DRY_RUN=1 bash run_loop.sh                          print every command, ready to paste
#
# Run it again to resume: what is finished and not older than what it was made from is skipped.
# The variables are explained in README.md.
set -euo pipefail
cd "$(dirname "$0")"
{ # bash reads a script while it runs it, but what stands in braces at once: an edit does not reach a run under way

die() {
  echo "run_loop.sh: $*" >&2
  exit 1
}

# Variables that decide what comes out; $OUT/settings keeps their values.
SETTINGS=(RECIPE SEED WORLD WORLD_OPTIONS BASE_MODEL SFT_DATA SFT_MODEL SFT_LEARNING_RATE SFT_EPOCHS SFT_BATCH_SIZE
  SFT_OPTIONS PREFERENCES REWARD_MODEL RM_START RM_LEARNING_RATE RM_EPOCHS RM_BATCH_SIZE RM_OPTIONS PREFERENCE_MODEL
  PM_START PM_LEARNING_RATE PM_EPOCHS PM_BATCH_SIZE PM_OPTIONS PM_METHOD ARMORM ARMORM_TRUST_REMOTE_CODE
  ARMORM_REVISION ARMORM_OPTIONS RATINGS JUDGE_URL
  JUDGE_MODEL JUDGE_METHOD JUDGE_OPTIONS VERIFIER_METHOD VERIFIER_PATTERN ANNOTATOR ANNOTATOR_WEIGHTS HELPFULNESS
  VERBOSITY DIRECTION_PROMPT VALIDATION MEASURE BENCH CLEAN PROMPTS EVAL_PROMPTS ITERATIONS PROMPTS_PER_ITERATION N
  TEMPERATURES MAX_NEW_TOKENS MAX_MODEL_LEN CHAT_TEMPLATE_KWARGS PAIRING MIN_MARGIN LENGTH_PENALTY LOSS BETA LEARNING_RATE
  EPOCHS BATCH_SIZE MAX_LENGTH DPO_OPTIONS PROMPTS_BY_ROUND LEARNING_RATES RM_TRUST_REMOTE_CODE RM_REVISION
  REFERENCE START HISTORY ENHANCER OFFLINE_PAIRS OFFLINE_SIZE DTYPE BENCHMARKS ALPACA_EVAL_OPTIONS ACADEMIC_OPTIONS)
# Variables that decide how it is run.
MANNER=(OUT GPUS NODES DISTRIBUTED TENSOR_PARALLEL PER_DEVICE_BATCH_SIZE GPU_MEMORY GRACE CHECK EVALS FROM TO DRY_RUN)

expand() { # expand TEXT: sets `expanded`, TEXT with its $NAME, ${NAME} and ${NAME:-TEXT} replaced; nothing is run
  local rest=$1 made="" name default
  # shellcheck disable=SC2016 # patterns
  local plain='^[^\$`"]+' \
    escaped='^\\[]}$`"\\]' \
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
      if [[ -n ${!name:-} ]]; then
        expanded=${!name}
      elif [[ -n $default ]]; then
        expand "$default" || return 1
      elif [[ -v $name || " ${SETTINGS[*]} ${MANNER[*]} " == *" $name "* ]]; then
        expanded=""
      else
        return 1
      fi
      made+=$expanded
      continue
    else # a command whose output would be the value, or the end of the text
      return 1
    fi
    rest=${rest:${#BASH_REMATCH[0]}}
  done
  expanded=$made
}

read_recipe() { # read_recipe FILE: sets its variables, except those that are set already
  local number=0 line name
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
    [[ $line =~ ^:\ \"\$\{([A-Z_0-9]+):=(.*)\}\"[[:space:]]*(#.*)?$ ]] ||
      die "$1:$number: not of the form : \"\${NAME:=value}\""
    name=${BASH_REMATCH[1]}
    [[ " ${SETTINGS[*]} ${MANNER[*]} " == *" $name "* ]] || die "$1:$number: $name: run_loop.sh has no such variable"
    expand "${BASH_REMATCH[2]}" ||
      die "$1:$number: not of the form : \"\${NAME:=value}\", with texts and known variables in the value"
    [[ -n ${!name:-} ]] || printf -v "$name" %s "$expanded"
  done <"$1"
}

given="" # what the caller set, to repeat it in a message
for name in "${SETTINGS[@]}" OUT GPUS NODES DISTRIBUTED TENSOR_PARALLEL PER_DEVICE_BATCH_SIZE EVALS; do
  [[ -z ${!name:-} ]] || given+="$name=$(printf %q "${!name}") "
done
: "${RECIPE:=recipes/tiny.sh}"
read -ra recipes <<<"$RECIPE"
for recipe in "${recipes[@]}"; do
  [[ -f $recipe ]] || die "$recipe: no such recipe"
done
for recipe in "${recipes[@]}"; do
  read_recipe "$recipe"
  : "${OUT:=runs/$(basename "$recipe" .sh)}" # the first's name, before another sets it
done

# Defaults, the paper's where it gives one.
: "${SEED:=0}" "${WORLD:=}" "${WORLD_OPTIONS:=}" "${DTYPE:=bfloat16}"
: "${BASE_MODEL:=}" "${SFT_DATA:=}" "${SFT_MODEL:=}" "${PREFERENCES:=}" "${REWARD_MODEL:=}"
: "${SFT_LEARNING_RATE:=2e-5}" "${SFT_EPOCHS:=1}" "${SFT_BATCH_SIZE:=32}" "${SFT_OPTIONS:=}" "${CLEAN:=}"
: "${RM_TRUST_REMOTE_CODE:=no}" "${RM_REVISION:=}"
: "${RM_START:=}" "${RM_LEARNING_RATE:=2e-6}" "${RM_EPOCHS:=1}" "${RM_BATCH_SIZE:=512}" "${RM_OPTIONS:=}"
: "${PREFERENCE_MODEL:=}" "${PM_START:=}" "${PM_LEARNING_RATE:=5e-6}" "${PM_EPOCHS:=1}" "${PM_BATCH_SIZE:=128}"
: "${PM_OPTIONS:=}" "${PM_METHOD:=tournament}"
: "${ARMORM:=}" "${ARMORM_TRUST_REMOTE_CODE:=no}" "${ARMORM_REVISION:=}" "${ARMORM_OPTIONS:=}" "${RATINGS:=}" "${JUDGE_URL:=}" "${JUDGE_MODEL:=}" "${JUDGE_METHOD:=rating}" "${JUDGE_OPTIONS:=}"
: "${VERIFIER_METHOD:=math}" "${VERIFIER_PATTERN:=}"
: "${ANNOTATOR:=reward_model}" "${ANNOTATOR_WEIGHTS:=}" "${HELPFULNESS:=}" "${VERBOSITY:=}"
: "${DIRECTION_PROMPT:=}" "${VALIDATION:=}" "${MEASURE:=none}" "${BENCH:=allenai/reward-bench}"
: "${PROMPTS_BY_ROUND:=}" "${PROMPTS:=}" "${EVAL_PROMPTS:=}" "${ITERATIONS:=3}" "${N:=8}"
[[ -n $PROMPTS ]] || PROMPTS=$PROMPTS_BY_ROUND # the evaluation's
[[ -z $PROMPTS_BY_ROUND ]] || : "${PROMPTS_PER_ITERATION:=0}" # all of a round's set
: "${PROMPTS_PER_ITERATION:=20000}"
: "${TEMPERATURES:=1.0 0.7}" "${MAX_NEW_TOKENS:=2048}" "${MAX_MODEL_LEN:=}" "${MAX_LENGTH:=2048}"
: "${CHAT_TEMPLATE_KWARGS:=}"
: "${PAIRING:=best_worst}" "${MIN_MARGIN:=0}" "${LENGTH_PENALTY:=0}"
: "${LOSS:=sigmoid}" "${BETA:=0.1}" "${LEARNING_RATE:=5e-7}" "${LEARNING_RATES:=}" "${EPOCHS:=2}" "${BATCH_SIZE:=128}"
: "${DPO_OPTIONS:=}"
[[ ! $LOSS =~ ^(sppo|selm)$ ]] || : "${REFERENCE:=previous}" # as the source's
: "${REFERENCE:=initial}" "${START:=previous}" "${HISTORY:=round}" "${ENHANCER:=none}"
: "${OFFLINE_PAIRS:=}" "${OFFLINE_SIZE:=0}"
: "${EVALS:=none}" "${BENCHMARKS:=}" "${ALPACA_EVAL_OPTIONS:=}" "${ACADEMIC_OPTIONS:=}"
: "${GPUS:=$(nvidia-smi -L 2>/dev/null | wc -l)}" "${NODES:=${SLURM_JOB_NUM_NODES:-1}}" "${DISTRIBUTED:=ddp}"
: "${TENSOR_PARALLEL:=1}" "${PER_DEVICE_BATCH_SIZE:=1}" "${GRACE:=60}"
: "${GPU_MEMORY:=}" "${CHECK:=yes}" "${FROM:=}" "${TO:=}" "${DRY_RUN:=}"

one_of() { # one_of NAME VALUES [some]: with a third argument, one or several of them
  local value values=("${!1}")
  [[ -z ${3:-} ]] || read -ra values <<<"${!1}"
  for value in "${values[@]}"; do
    [[ " $2 " == *" $value "* ]] || die "$1=${!1}: one ${3:+or several }of $2"
  done
}
whole() { # whole NAME...: each is a whole number; arithmetic would run a $(...) in another text
  local name
  for name in "$@"; do
    [[ ${!name} =~ ^(0|[1-9][0-9]{0,11})$ ]] || die "$name=${!name}: a whole number is needed"
  done
}
whole SEED ITERATIONS PROMPTS_PER_ITERATION N MAX_NEW_TOKENS OFFLINE_SIZE GPUS NODES TENSOR_PARALLEL GRACE
whole SFT_BATCH_SIZE RM_BATCH_SIZE PM_BATCH_SIZE BATCH_SIZE PER_DEVICE_BATCH_SIZE
for name in N NODES TENSOR_PARALLEL PER_DEVICE_BATCH_SIZE; do
  ((${!name} > 0)) || die "$name=${!name}: at least 1 is needed"
done
((SEED < 2 ** 32)) || die "SEED=$SEED: below 2^32 is needed"
[[ -z $FROM ]] || whole FROM
[[ -z $TO ]] || whole TO
if [[ -n $MAX_MODEL_LEN ]]; then
  whole MAX_MODEL_LEN
  ((MAX_MODEL_LEN > MAX_NEW_TOKENS)) || die "MAX_MODEL_LEN=$MAX_MODEL_LEN: more than MAX_NEW_TOKENS is needed"
fi
model_len=(${MAX_MODEL_LEN:+--max_model_len "$MAX_MODEL_LEN"}) # of every engine

[[ ! $OUT =~ ^-|[[:space:]] ]] || die "OUT=$OUT: no dash at its start and no blanks"
case $(realpath -m -- "$OUT") in
  / | "$PWD" | "$(realpath -m -- ~)") die "OUT=$OUT: not a place for a run" ;;
esac

is_file() { # is_file NAME: never a name on the hub
  [[ $1 =~ ^[./~] || $1 =~ ^[^:]*\.(jsonl?|parquet)(\.gz)?$ || $1 =~ ^[^:]*/[^:]*/ ]]
}
needs_files() { # needs_files VARIABLE...: what they name is there, on the hub, or made by the run below OUT
  local name word words
  for name in "$@"; do
    read -ra words <<<"${!name}"
    for word in "${words[@]}"; do
      [[ ! -e $word && $word != "$OUT"/* ]] || continue
      if [[ $name =~ ^(EVAL_PROMPTS|RATINGS)$ ]] || is_file "$word"; then die "$name=$word: no such file"; fi
    done
  done
}
if [[ -z $DRY_RUN ]]; then # which may come before the files
  needs_files PROMPTS PROMPTS_BY_ROUND EVAL_PROMPTS SFT_DATA PREFERENCES RATINGS OFFLINE_PAIRS BENCHMARKS BENCH
  needs_files BASE_MODEL SFT_MODEL REWARD_MODEL RM_START PREFERENCE_MODEL PM_START ARMORM
fi

# What the settings, the logs and the model cards keep holds no keys.
[[ ! $JUDGE_URL =~ ^[a-z]+://[^/]*@|[?#] ]] ||
  die "JUDGE_URL: an address without user, password and query; a key belongs in OPENAI_API_KEY"
secret_flag='--(hub_token|[a-z_]*(api_key|apikey|secret|password|access_token))([= ]|$)'
secret_value='(^|[^A-Za-z0-9])(hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9_-]{16}|gh[ps]_[A-Za-z0-9]{20}|Bearer )'
for name in "${SETTINGS[@]}"; do
  [[ ! ${!name} =~ $secret_flag && ! ${!name} =~ $secret_value ]] ||
    die "$name: it holds a key; give keys in the environment (HF_TOKEN, OPENAI_API_KEY, WANDB_API_KEY)"
done

one_of REFERENCE "initial previous"
one_of ARMORM_TRUST_REMOTE_CODE "yes no"
one_of RM_TRUST_REMOTE_CODE "yes no"
one_of CHECK "yes no"
one_of DISTRIBUTED "ddp zero2 zero3 zero3_offload fsdp"
one_of START "initial previous"
one_of HISTORY "round all"
one_of PAIRING "best_worst best_random random_random uncertain offline self_play"
one_of ENHANCER "none initial previous mixture"
losses="sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down discopop sft" # TRL's
one_of LOSS "$losses sigmoid_norm slic sppo xpo selm rpo kto raft dpa rloo" some
one_of ANNOTATOR "reward_model preference_model armorm llm_judge verifier policy" some
one_of MEASURE "none reward_model preference_model armorm llm_judge verifier" some
one_of EVALS "none alpaca_eval mt_bench arena_hard academic" some
one_of PM_METHOD "tournament all_pairs"
one_of JUDGE_METHOD "rating tournament all_pairs"
one_of VERIFIER_METHOD "math exact"
for name in MEASURE EVALS; do
  [[ " ${!name} " != *" none "* || ${!name} == none ]] || die "$name=${!name}: none, or others"
done
read -ra annotators <<<"$ANNOTATOR"
if [[ -z $VALIDATION ]]; then # who chooses the best policy: the true reward of a made world, the reward model, or else
  VALIDATION=${annotators[0]}
  [[ -z $REWARD_MODEL$PREFERENCES ]] || VALIDATION=reward_model
  [[ -z $WORLD ]] || VALIDATION=true_reward
fi
one_of VALIDATION "true_reward reward_model preference_model armorm llm_judge verifier"
[[ $VALIDATION != true_reward || -n $WORLD ]] || die "VALIDATION=true_reward: only in a made world, by WORLD"
read -ra weights <<<"$ANNOTATOR_WEIGHTS"
((${#weights[@]} == 0 || ${#weights[@]} == ${#annotators[@]})) ||
  die "ANNOTATOR_WEIGHTS=$ANNOTATOR_WEIGHTS: ${#weights[@]} for ${#annotators[@]} of ANNOTATOR"
read -ra pools <<<"$PROMPTS_BY_ROUND"
((${#pools[@]} == 0 || ${#pools[@]} == ITERATIONS)) ||
  die "PROMPTS_BY_ROUND=$PROMPTS_BY_ROUND: ${#pools[@]} for ITERATIONS=$ITERATIONS; give one a round"
((PROMPTS_PER_ITERATION || ITERATIONS < 2 || ${#pools[@]})) ||
  die "PROMPTS_PER_ITERATION=0: the first round would take all of PROMPTS; set ITERATIONS=1 or PROMPTS_BY_ROUND"
[[ -z $PROMPTS_BY_ROUND || (-z $CLEAN && $PAIRING != self_play) ]] ||
  die "PROMPTS_BY_ROUND: not with CLEAN, nor with PAIRING=self_play"
read -ra rates <<<"$LEARNING_RATES"
((${#rates[@]} == 0 || ${#rates[@]} == ITERATIONS)) ||
  die "LEARNING_RATES=$LEARNING_RATES: ${#rates[@]} for ITERATIONS=$ITERATIONS; give one a round"
uses() { # uses ANNOTATOR: it is asked to annotate the responses of a round, to choose a policy, or to be measured
  [[ " $ANNOTATOR $VALIDATION $MEASURE " == *" $1 "* ]]
}
if [[ $PAIRING == offline || $OFFLINE_SIZE != 0 ]]; then : "${OFFLINE_PAIRS:=$PREFERENCES}"; fi
[[ $PAIRING != self_play || -n $SFT_DATA ]] || die "PAIRING=self_play: set SFT_DATA, whose answers are the better ones"
online=$ITERATIONS # rounds in which the policy answers
if [[ $PAIRING == offline ]]; then
  online=0
  ((ITERATIONS == 1)) && [[ -n $OFFLINE_PAIRS ]] || die "PAIRING=offline: set ITERATIONS=1, and OFFLINE_PAIRS or PREFERENCES"
fi
[[ $LOSS != dpa || ($ANNOTATOR == armorm && -n $HELPFULNESS && -n $VERBOSITY) ]] || die "LOSS=dpa: set ANNOTATOR=armorm, and by its objectives HELPFULNESS and VERBOSITY"
for name in helpfulness verbosity; do
  [[ -z $DIRECTION_PROMPT || $DIRECTION_PROMPT == *"{$name}"* ]] ||
    die "DIRECTION_PROMPT=$DIRECTION_PROMPT: {$name} is missing"
done
[[ $PAIRING != uncertain || ! $LOSS =~ sppo|xpo|selm ]] || die "PAIRING=uncertain: not with LOSS=$LOSS"
[[ $LOSS != rloo || $ITERATIONS == 1 || $REFERENCE == previous ]] ||
  die "LOSS=rloo: its reference is the policy it starts from; set ITERATIONS=1 or REFERENCE=previous"
[[ $ENHANCER == none ]] || ((N % 2 == 0)) || die "N=$N: with ENHANCER=$ENHANCER each policy gives half of them"
if ((online)) && [[ $LOSS != rloo ]]; then
  read -ra temperatures <<<"$TEMPERATURES"
  of_policy=$N
  [[ $ENHANCER == none ]] || of_policy=$((N / 2))
  ((${#temperatures[@]} && of_policy % ${#temperatures[@]} == 0)) ||
    die "N=$N: $of_policy responses of a policy do not divide by the ${#temperatures[@]} of TEMPERATURES=$TEMPERATURES"
  for name in "${temperatures[@]}"; do
    [[ $name =~ ^[0-9]*\.?[0-9]*(e[+-]?[0-9]+)?$ && $name =~ [0-9] ]] || die "TEMPERATURES=$TEMPERATURES: not numbers"
    [[ ! $name =~ ^0*\.?0*(e.*)?$ ]] || ((of_policy == ${#temperatures[@]})) ||
      die "TEMPERATURES=$TEMPERATURES: at 0 there is one response, the greedy one; give each of the N=$N a temperature"
  done
fi
[[ -n $PROMPTS ]] || die "$RECIPE: PROMPTS must be set"
[[ -n $SFT_MODEL || (-n $BASE_MODEL && -n $SFT_DATA) ]] || die "$RECIPE: set SFT_MODEL, or BASE_MODEL and SFT_DATA"
if [[ -z $REWARD_MODEL$PREFERENCES ]]; then # none is trained, and none scores the answers to the evaluation prompts
  for name in ANNOTATOR VALIDATION MEASURE; do
    [[ " ${!name} " != *" reward_model "* ]] || die "$RECIPE: set REWARD_MODEL or PREFERENCES, for $name=${!name}"
  done
  [[ $LOSS != rloo && $PAIRING != uncertain ]] ||
    die "$RECIPE: set REWARD_MODEL or PREFERENCES, for LOSS=$LOSS PAIRING=$PAIRING"
fi
pairwise="" # the chooser compares policies, it does not score one
[[ $VALIDATION != preference_model && ($VALIDATION != llm_judge || $JUDGE_METHOD == rating) ]] || pairwise=1
[[ -z $pairwise ]] || ((ITERATIONS)) || die "VALIDATION=$VALIDATION: it compares policies, and ITERATIONS=0 makes no second one"
if [[ $VALIDATION == verifier && -f $EVAL_PROMPTS ]] && ! awk 'NF && !/"answer"/ {exit 1}' "$EVAL_PROMPTS"; then
  die "VALIDATION=verifier: a row of $EVAL_PROMPTS has no answer"
fi
! uses preference_model || [[ -n $PREFERENCE_MODEL || -n $PREFERENCES ]] ||
  die "$RECIPE: set PREFERENCE_MODEL or PREFERENCES"
! uses armorm || [[ -n $ARMORM || (-n $PREFERENCES && -n $RATINGS) ]] ||
  die "$RECIPE: set ARMORM, or PREFERENCES and RATINGS"
if uses armorm && [[ -n $ARMORM && ! -e $ARMORM && $ARMORM =~ ^[^/]+/[^/]+$ ]]; then # a name on the hub
  [[ $ARMORM_TRUST_REMOTE_CODE == yes && $ARMORM_REVISION =~ ^[0-9a-f]{40}$ ]] ||
    die "ARMORM=$ARMORM: it runs code from the hub: set ARMORM_TRUST_REMOTE_CODE=yes and ARMORM_REVISION to a commit"
fi
rm_code=() # for 1a_reward_model.py, which alone runs code of a reward model's own
[[ $RM_TRUST_REMOTE_CODE == no ]] || rm_code=(--trust_remote_code)
[[ -z $RM_REVISION ]] || rm_code+=(--revision "$RM_REVISION")
if ((${#rm_code[@]})); then
  [[ -n $REWARD_MODEL && $LOSS != rloo && $PAIRING != uncertain ]] ||
    die "RM_TRUST_REMOTE_CODE, RM_REVISION: for a REWARD_MODEL that is only asked (not LOSS=rloo, PAIRING=uncertain)"
  ! uses armorm || [[ -n $ARMORM ]] || die "RM_TRUST_REMOTE_CODE, RM_REVISION: an ArmoRM is not trained on such a model"
  [[ $RM_TRUST_REMOTE_CODE == no || -e $REWARD_MODEL || $RM_REVISION =~ ^[0-9a-f]{40}$ ]] ||
    die "REWARD_MODEL=$REWARD_MODEL: it runs code from the hub: set RM_REVISION to a commit"
fi
if uses llm_judge || [[ $EVALS =~ alpaca_eval|mt_bench|arena_hard ]]; then
  [[ -n $JUDGE_MODEL && (-n $JUDGE_URL || -n $WORLD) ]] || die "$RECIPE: set JUDGE_URL and JUDGE_MODEL"
  [[ $JUDGE_OPTIONS != *--max_tokens* || $EVALS != *alpaca_eval* || $ALPACA_EVAL_OPTIONS == *--no_logprobs* ]] ||
    die "JUDGE_OPTIONS=$JUDGE_OPTIONS: a judge that thinks needs ALPACA_EVAL_OPTIONS=--no_logprobs"
fi

template=() # arguments of the policies' chat template
[[ -z $CHAT_TEMPLATE_KWARGS ]] || template=(--chat_template_kwargs "$CHAT_TEMPLATE_KWARGS")

# Global batch = per-device batch x processes x accumulation steps.
per_node=$((GPUS > 1 ? GPUS : 1))
processes=$((per_node * NODES))
((per_node % TENSOR_PARALLEL == 0)) || die "TENSOR_PARALLEL=$TENSOR_PARALLEL does not divide the $per_node GPUs of a node"
groups=$((processes / TENSOR_PARALLEL)) # of GPUs that hold one model of vLLM's
hosts=(node{0..99}) # what a dry run prints
if ((NODES > 1)) && [[ -z $DRY_RUN ]]; then
  [[ -n ${SLURM_JOB_NODELIST:-} ]] || die "NODES=$NODES: more than one only in a job of Slurm, see recipes/slurm"
  mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  ((${#hosts[@]} == NODES)) || die "NODES=$NODES, but the job has ${#hosts[@]}: ${hosts[*]}"
fi
srun=(srun --overlap --kill-on-bad-exit "--cpus-per-task=${SLURM_CPUS_ON_NODE:-1}" --cpu-bind=none) # no step waits for another
batch() { # batch NAME: the two flags that give the global batch of that variable
  local size=$((${!1} / processes < PER_DEVICE_BATCH_SIZE ? ${!1} / processes : PER_DEVICE_BATCH_SIZE))
  ((size && ${!1} % (size * processes) == 0)) ||
    die "$1=${!1} does not divide by $processes processes x PER_DEVICE_BATCH_SIZE $size"
  echo "--per_device_train_batch_size $size --gradient_accumulation_steps $((${!1} / (size * processes)))"
}
sft_batch=$(batch SFT_BATCH_SIZE)
rm_batch=$(batch RM_BATCH_SIZE)
pm_batch=$(batch PM_BATCH_SIZE)
dpo_batch=$(batch BATCH_SIZE)
[[ $LOSS != kto || $dpo_batch != "--per_device_train_batch_size 1 "* ]] ||
  die "LOSS=kto: it takes its mismatched responses from a device's rows: set PER_DEVICE_BATCH_SIZE to 2 or more"
[[ $LOSS != rloo ]] || ((N > 1 && BATCH_SIZE % N == 0)) ||
  die "LOSS=rloo: BATCH_SIZE=$BATCH_SIZE does not divide by N=$N, or N is 1"

export PYTHONUNBUFFERED=1 TQDM_DISABLE=1 # the logs get plain lines instead of bars
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=$GRACE # of accelerate's launcher, which hands a SIGTERM on
if [[ -z $DRY_RUN ]]; then
  # shellcheck source=setup.sh
  source ./setup.sh
fi
variables=() # as they are given; the steps below fill in some
for name in "${SETTINGS[@]}" "${MANNER[@]}"; do variables+=("$name=${!name}"); done
new="" # whether this call has written the settings
refuse() { # die, and let OUT be given other settings where nothing has been made yet
  [[ -z $new ]] || ((ran)) || rm -f "$OUT/settings"
  die "$@"
}
check() { # the rows and models of others, the hub, the disk, the GPUs: what would stop the run later
  local python=python found="" after="CHECK=no goes on without these checks"
  [[ $CHECK == yes ]] || after="mend what is named above"
  if [[ -n $DRY_RUN ]]; then # with what is there: it installs nothing
    for python in "${VIRTUAL_ENV:-${CONDA_PREFIX:--}}/bin/python" .venv/bin/python python; do
      if "$python" -I -c "import huggingface_hub, rows" 2>/dev/null; then found=yes && break; fi
    done
    if [[ -z $found ]]; then
      [[ $CHECK == no ]] || echo "# not checked: no environment here, source ./setup.sh makes one"
      return 0
    fi
  fi
  env "${variables[@]}" "$python" recipes/check.py || refuse "$after"
}
settings_of_before() { # settings_of_before FILE: those of an earlier run; variables that are new since are as they are now
  local name
  for name in "${SETTINGS[@]}"; do
    if ! grep "^$name=" "$1"; then printf '%s=%q\n' "$name" "${!name}"; fi
  done
}

if [[ -z $DRY_RUN ]]; then
  mkdir -p "$OUT/log"
  exec {lock}>"$OUT/.lock"
  flock -n "$lock" || die "$OUT: another run_loop.sh is at work there"
  settings=$(for name in "${SETTINGS[@]}"; do printf '%s=%q\n' "$name" "${!name}"; done)
  if [[ -e $OUT/settings ]] && ! difference=$(diff <(settings_of_before "$OUT/settings") - <<<"$settings"); then
    die "$OUT holds a run with other settings (<), give another OUT:"$'\n'"$(grep '^[<>]' <<<"$difference")"
  fi
  [[ -e $OUT/settings ]] ||
    { new=yes && echo "$settings" >"$OUT/settings.new" && mv "$OUT/settings.new" "$OUT/settings"; }
fi

if ((NODES > 1)) && [[ -z $DRY_RUN ]]; then # by the times of files it is judged what has to be made again
  from=$EPOCHSECONDS
  # shellcheck disable=SC2016 # each node says its own
  clocks=$("${srun[@]}" --nodes="$NODES" --ntasks-per-node=1 bash -c 'echo "$SLURMD_NODENAME $EPOCHSECONDS"') ||
    die "srun does not reach the nodes ${hosts[*]}"
  while read -r host clock; do
    ((clock >= from - 2 && clock <= EPOCHSECONDS + 2)) ||
      die "the clock of $host is $((clock - EPOCHSECONDS)) s off that of ${hosts[0]}: set them, by NTP or chrony"
  done <<<"$clocks"
fi

pids=()
servers=() # processes that live longer than a step
# shellcheck disable=SC2329 # the trap calls it
stop_children() {
  local ask=TERM
  [[ -n $DRY_RUN ]] && return
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
trap stop_children EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

launch() { # launch LOG COMMAND...: in the background, in a session of its own that ends when this script is killed
  local log=$1
  shift
  setsid setpriv --pdeathsig KILL "$@" > >(tee "$log") 2>&1 &
  pids+=($!)
}

serve_judge() { # the world's own judge, before the first step that asks it
  [[ -z $JUDGE_URL && -z ${servers[*]} ]] || return 0
  local judge=("$WORLD/4_judge.py" --questions_files "$OUT"/world/{prompts,evaluation,preferences,bench}.jsonl)
  if [[ -n $DRY_RUN ]]; then
    printf '%q ' python "${judge[@]}" && echo "# serves until it is stopped; OPENAI_BASE_URL has to hold its address"
    servers=(none)
    return 0
  fi
  rm -f "$OUT/judge.url"
  pids=()
  launch "$OUT/log/judge.log" python "${judge[@]}" --port 0 --url_file "$OUT/judge.url"
  servers=("${pids[@]}")
  for _ in {1..300}; do [[ -e $OUT/judge.url ]] || sleep 0.1; done
  [[ -e $OUT/judge.url ]] || die "the judge did not start, see $OUT/log/judge.log"
  OPENAI_BASE_URL=$(<"$OUT/judge.url")
  export OPENAI_BASE_URL
}

fresh() { # fresh FILE COMMAND...: FILE is there, and none of what the command reads below $OUT is newer
  local file=$1 argument before=""
  shift
  [[ -e $file ]] || return 1
  for argument in "$@"; do
    [[ $argument != "$OUT"/* || $argument == "$file" || $before == --output_dir || $before == --log_dir ||
      $before == --held_out_file || ! $argument -nt $file ]] || return 1
    before=$argument
  done
}

place_shard() { # place_shard I: sets `placed`, the words before the command of that shard: its node and its GPUs
  local each=$((processes / shards)) first devices
  first=$(($1 * each))
  devices=$(seq -s, $((first % per_node)) $((first % per_node + each - 1)))
  placed=(env "CUDA_VISIBLE_DEVICES=$devices")
  ((NODES == 1)) ||
    placed=("${srun[@]}" --nodes=1 --ntasks=1 "--nodelist=${hosts[first / per_node]}" "${placed[@]}")
}

launch_shard() { # launch_shard I LOG COMMAND...: the step's command on a share of its rows
  local i=$1 log=$2
  shift 2
  place_shard "$i"
  launch "$log" "${placed[@]}" "${@/#"$file"/"$file.$i-of-$shards"}" --shard "$i" --num_shards "$shards"
}

ran=0
checked=""
shards=1 # processes that share the rows of a step's ORDER file
order=""
part="" # a letter, where a step consists of several commands
step() { # step N FILE COMMAND...: make FILE by COMMAND
  local number=$((10 * t + $1)) file=$2 start=$SECONDS logs=() parts=() numbers=() i status
  local id=$number$part
  shift 2
  ((number >= ${FROM:-0} && number <= ${TO:-99999})) || return 0
  if [[ -n $DRY_RUN ]]; then
    [[ $* != *" --judge_model "* ]] || serve_judge
    for ((i = 0; i < shards && shards > 1; i++)); do
      place_shard "$i"
      printf '%q ' "${placed[@]}" "${@/#"$file"/"$file.$i-of-$shards"}" --shard "$i" --num_shards "$shards"
      echo " # step $id, shard $i"
    done
    ((shards == 1)) || set -- python shards.py "$order" "$file" "$shards"
    printf '%q ' "$@" && echo " # step $id"
    return 0
  fi
  if [[ -z $FROM$TO ]] && fresh "$file" "$@"; then return 0; fi
  [[ -n $checked ]] || check
  checked=1
  echo "[$id] $(date +%T) $*"
  [[ $* != *" --judge_model "* ]] || serve_judge
  pids=()
  if ((shards == 1)); then
    logs=("$OUT/log/$id.log")
    launch "${logs[0]}" "$@"
  else
    for ((i = 0; i < shards; i++)); do
      parts+=("$file.$i-of-$shards")
      if [[ -z $FROM$TO ]] && fresh "${parts[i]}" "$@"; then continue; fi
      logs+=("$OUT/log/$id.$i.log") numbers+=("$i")
      launch_shard "$i" "${logs[-1]}" "$@"
    done
  fi
  for i in "${!pids[@]}"; do # each by its own pid: a bare wait would hide a failure
    status=0
    wait "${pids[i]}" || status=$?
    if ((shards > 1 && status && status != 143)); then
      logs[i]=$OUT/log/$id.${numbers[i]}.again.log
      echo "[$id] shard ${numbers[i]} of $shards failed; once more, ${logs[i]}"
      launch_shard "${numbers[i]}" "${logs[i]}" "$@"
      status=0
      wait "${pids[-1]}" || status=$?
    fi
    ((status)) || continue
    if ((status == 143)); then # as a cluster does that needs the machine
      echo "run_loop.sh: step $id was stopped by a SIGTERM; to go on, give the same command again" >&2
      exit 143
    fi
    echo "run_loop.sh: step $id${numbers[i]+, shard ${numbers[i]} of $shards,} failed; the end of ${logs[i]}:" >&2
    tail -n 5 "${logs[i]}" >&2
    (($(df -Pk "$OUT" | awk 'END {print $4}') > 1024)) || echo "No space is left on the disk of $OUT." >&2
    die "to go on, give the same command again; for this step alone: ${given}FROM=$number TO=$number bash run_loop.sh"
  done
  pids=()
  if ((shards > 1)); then
    python shards.py "$order" "$file" "$shards" || exit 1
    rm -- "${parts[@]}"
  fi
  [[ -e $file ]] || die "step $id left no $file, see ${logs[0]}"
  { echo "$((SECONDS - start))" >"$OUT/log/$id.seconds.new" && mv "$OUT/log/$id.seconds.new" "$OUT/log/$id.seconds"; } ||
    die "cannot write into $OUT/log; to go on, give the same command again"
  echo "[$id] $file took $((SECONDS - start)) s"
  ran=$((ran + 1))
}

train() { # train N DIRECTORY SCRIPT FLAGS...: TRL's flags that every training shares
  local id=$1 directory=$2 launcher=(python) flags port=0
  shift 2
  if ((processes > 1)); then
    flags=(--config_file "recipes/accelerate/$DISTRIBUTED.yaml" --num_processes "$processes")
    if ((NODES == 1)); then
      launcher=(accelerate launch "${flags[@]}" --main_process_port 0) # any that is free
    else
      port=$((20000 + ${SLURM_JOB_ID:-0} % 10000))
      while [[ -z $DRY_RUN ]] && (: <"/dev/tcp/localhost/$port") 2>/dev/null; do port=$((port + 1)); done
      launcher=("${srun[@]}" --nodes="$NODES" --ntasks-per-node=1 bash recipes/slurm/launch.sh "${flags[@]}"
        --num_machines "$NODES" --main_process_port "$port")
    fi
    ((GPUS)) || set -- "$@" --use_cpu True
  fi
  local precision=(--bf16 False --gradient_checkpointing False --dataloader_pin_memory False)
  [[ $DTYPE == float32 ]] || precision=(--bf16 True --gradient_checkpointing True)
  step "$id" "$directory" "${launcher[@]}" "$@" --output_dir "$directory" --seed "$SEED" "${precision[@]}" \
    --logging_steps 10 --logging_first_step True --save_steps 0.2 --save_total_limit 1 --disable_tqdm True
}

declare -A letter=([reward_model]=a [preference_model]=b [armorm]=c [llm_judge]=d [verifier]=e [policy]=f)
annotate() { # annotate N ANNOTATOR RESPONSES REWARDS FLAGS...
  local id=$1 name=$2 from=$3 to=$4 shards=$shards by
  shift 4
  case $name in
    reward_model) by=(annotation/1a_reward_model.py --model_name_or_path "$REWARD_MODEL" "${rm_code[@]}" --dtype "$DTYPE") ;;
    armorm)
      by=(annotation/1a_reward_model.py --model_name_or_path "$ARMORM")
      # A model that we have trained comes with this checkout's own code.
      if [[ -n $learn_armorm || $ARMORM_TRUST_REMOTE_CODE == yes ]] ||
        cmp -s "$ARMORM/modeling_armorm.py" reward_modeling/modeling_armorm.py; then
        by+=(--trust_remote_code)
      fi
      by+=(${ARMORM_REVISION:+--revision "$ARMORM_REVISION"} --dtype "$DTYPE")
      ;;
    preference_model)
      by=(annotation/1b_preference_model.py --model_name_or_path "$PREFERENCE_MODEL" --dtype "$DTYPE" --method "$PM_METHOD")
      ;;
    policy) # self-rewarding: the round's policy compares its own responses
      by=(annotation/1b_preference_model.py --model_name_or_path "$policy" --dtype "$DTYPE" --method "$PM_METHOD" --bos
        "${template[@]}")
      ;;
    llm_judge) # many requests at once by one process, beside the world's own judge
      # shellcheck disable=SC2206
      shards=1 by=(annotation/1c_llm_judge.py --judge_model "$JUDGE_MODEL" --method "$JUDGE_METHOD" $JUDGE_OPTIONS)
      [[ -z $JUDGE_URL ]] || by+=(--judge_url "$JUDGE_URL")
      ;;
    verifier) by=(annotation/1d_verifier.py --method "$VERIFIER_METHOD" --pattern "$VERIFIER_PATTERN") ;;
  esac
  step "$id" "$to" python "${by[@]}" --responses_file "$from" --output_file "$to" "$@" # of two equal flags the last counts
}

answered=() measured=()
evaluate() { # evaluate NAME POLICY: steps 6 to 9, answers to the evaluation prompts and what can be measured on them
  local dir=$OUT/eval/$1 policy=$2 last
  shards=$groups order=$EVAL_PROMPTS step 6 "$dir/answers.jsonl" python generation/2_responses.py \
    --model_name_or_path "$policy" --prompts_file "$EVAL_PROMPTS" --n 1 --temperatures 1.0 \
    --max_new_tokens "$MAX_NEW_TOKENS" --dtype "$DTYPE" --tensor_parallel_size "$TENSOR_PARALLEL" --seed "$SEED" \
    "${template[@]}" "${model_len[@]}" --output_file "$dir/answers.jsonl"
  answered+=("$dir/answers.jsonl")
  last=$dir/answers.jsonl
  if [[ -n $REWARD_MODEL ]]; then
    last=$dir/rewards.jsonl
    shards=$processes order=$dir/answers.jsonl step 7 "$last" python annotation/1a_reward_model.py \
      --model_name_or_path "$REWARD_MODEL" "${rm_code[@]}" --responses_file "$dir/answers.jsonl" --n 1 --dtype "$DTYPE" \
      --output_file "$last"
  fi
  if [[ -n $WORLD ]]; then
    step 8 "$dir/true_rewards.jsonl" python "$WORLD/3_true_reward.py" --rewards_file "$last" \
      --output_file "$dir/true_rewards.jsonl"
    last=$dir/true_rewards.jsonl
  fi
  step 9 "$dir/kl.jsonl" python eval/2_kl.py --model_name_or_path "$policy" --ref_model_name_or_path "$SFT_MODEL" \
    --responses_file "$last" --dtype "$DTYPE" "${template[@]}" --output_file "$dir/kl.jsonl"
  measured+=("$dir/kl.jsonl")
}

read -ra evals <<<"$EVALS"
benchmarked=()
benchmark() { # benchmark NAME POLICY: steps 7 and 8 after the last iteration, its answers and scores for EVALS
  local dir=$OUT/eval/$1 policy=$2 from=$BENCHMARKS part name asked=() questions=() answers=() by
  for name in "${evals[@]}"; do
    case $name in
      alpaca_eval) asked+=("$name") questions+=("$from/alpaca_eval.json") answers+=("$dir/$name/answers.json") ;;
      mt_bench | arena_hard)
        asked+=("$name") questions+=("$from/${name}_questions.jsonl") answers+=("$dir/$name/answers.jsonl")
        ;;
    esac
  done
  part=_$1
  ((${#asked[@]} == 0)) || step 7 "${answers[-1]}" python eval/1_answers.py --benchmarks "${asked[@]}" \
    --model_name_or_path "$policy" --model_name "$1" ${from:+--questions_files "${questions[@]}"} --seed "$SEED" \
    --dtype "$DTYPE" --tensor_parallel_size "$TENSOR_PARALLEL" "${template[@]}" "${model_len[@]}" \
    --output_files "${answers[@]}"
  for name in "${evals[@]}"; do
    # shellcheck disable=SC2206
    case $name in
      none) continue ;;
      alpaca_eval)
        by=(eval/2a_alpaca_eval.py --model_outputs "$dir/$name/answers.json" $ALPACA_EVAL_OPTIONS
          ${from:+--reference_outputs "$from/alpaca_eval.json"})
        ;;
      mt_bench)
        by=(eval/2b_mt_bench.py --answers_file "$dir/$name/answers.jsonl"
          ${from:+--questions_file "$from/mt_bench_questions.jsonl" --references_file "$from/mt_bench_references.jsonl"}
          ${from:+--prompts_file "$from/mt_bench_prompts.jsonl"})
        ;;
      arena_hard)
        by=(eval/2c_arena_hard.py --answers_file "$dir/$name/answers.jsonl"
          ${from:+--questions_file "$from/arena_hard_questions.jsonl" --baseline_file "$from/arena_hard_baseline.jsonl"}
          ${from:+--prompts_file "$from/arena_hard_prompts.yaml"})
        ;;
      academic) by=(eval/2d_academic.py --model_name_or_path "$policy" --dtype "$DTYPE" "${template[@]}"
        --tensor_parallel_size "$TENSOR_PARALLEL" $ACADEMIC_OPTIONS) ;;
    esac
    # shellcheck disable=SC2206
    [[ $name == academic ]] || by+=(--judge_model "$JUDGE_MODEL" ${JUDGE_URL:+--judge_url "$JUDGE_URL"} $JUDGE_OPTIONS)
    benchmarked+=("$dir/$name/$name.json")
    part=_$1_$name
    step 8 "${benchmarked[-1]}" python "${by[@]}" --output_dir "$dir/$name"
  done
}

clean() { # clean ROWS WHAT_IS_LEFT: by the flags of CLEAN
  # shellcheck disable=SC2086
  step 2 "$2" python data/1_clean.py --input_file "$1" --output_file "$2" $CLEAN
}

seen=() pairs=() # prompts of earlier rounds, and what DPO trains on
sample() { # sample FILE POLICY N SEED TEMPERATURES: N responses to each prompt of the round
  # shellcheck disable=SC2086
  shards=$groups order=$to_answer step 2 "$1" python generation/2_responses.py \
    --model_name_or_path "$2" --prompts_file "$to_answer" --n "$3" --temperatures $5 \
    --max_new_tokens "$MAX_NEW_TOKENS" --dtype "$DTYPE" --tensor_parallel_size "$TENSOR_PARALLEL" --seed "$4" \
    "${template[@]}" "${model_len[@]}" --output_file "$1"
}

sample_with_enhancer() { # half of the responses of each policy
  local enhancer=$SFT_MODEL files=("$dir/responses_main.jsonl" "$dir/responses_enhancer.jsonl")
  [[ $ENHANCER != previous ]] || enhancer=$previous
  if [[ $ENHANCER == mixture ]]; then
    enhancer=$dir/mixture
    part=m step 2 "$enhancer" python dpo/2_interpolate.py --models "$policy" "$SFT_MODEL" --output_dir "$enhancer"
  fi
  part=a sample "${files[0]}" "$policy" $((N / 2)) "$SEED" "$TEMPERATURES"
  part=b sample "${files[1]}" "$enhancer" $((N / 2)) $((SEED + 1)) "$TEMPERATURES"
  step 2 "$dir/responses.jsonl" python generation/2b_merge.py --responses_files "${files[@]}" \
    --output_file "$dir/responses.jsonl"
}

counted=""
count_prompts() { # before anything is trained: are there prompts for all rounds?
  local sets=("$PROMPTS") needed=$((ITERATIONS * PROMPTS_PER_ITERATION)) set told
  [[ -z $DRY_RUN$FROM$TO$counted && $online != 0 && ! -e $OUT/iter1/prompts.jsonl ]] || return 0
  counted=yes
  ((${#pools[@]} == 0)) || sets=("${pools[@]}") needed=$PROMPTS_PER_ITERATION # of each
  for set in "${sets[@]}"; do
    # shellcheck disable=SC2086
    told=$(python generation/1_prompts.py --datasets $set --exclude_files "$EVAL_PROMPTS" \
      --at_least $((needed ? needed : 1)) 2>&1) ||
      refuse "$(tail -n 1 <<<"$told"); ITERATIONS=$ITERATIONS, PROMPTS_PER_ITERATION=$PROMPTS_PER_ITERATION"
  done
}

seen=() pairs=() # prompts of earlier rounds, and what the policy is trained on
uncertain=()       # earlier rounds' pairs of PAIRING=uncertain
sample_and_pair() { # the steps 1 to 4 of a round: the policy's responses to new prompts, best against worst
  local name rewards=() more=() earlier=() made=$dir/pairs.jsonl to_answer=$dir/prompts.jsonl
  # shellcheck disable=SC2086
  step 1 "$dir/prompts.jsonl" python generation/1_prompts.py --datasets ${pools[t - 1]:-$PROMPTS} \
    --exclude_files "${seen[@]}" --size "$PROMPTS_PER_ITERATION" --seed "$SEED" --output_file "$dir/prompts.jsonl"
  seen+=("$dir/prompts.jsonl")
  if [[ $LOSS == dpa ]]; then
    to_answer=$dir/directed.jsonl
    part=d step 1 "$to_answer" python generation/1b_directions.py --prompts_file "$dir/prompts.jsonl" --seed "$SEED" \
      ${DIRECTION_PROMPT:+--system_prompt "$DIRECTION_PROMPT"} --output_file "$to_answer"
  fi
  if [[ $LOSS == rloo ]]; then # samples while it trains
    pairs+=("$dir/prompts.jsonl")
    return
  fi
  if [[ $ENHANCER == none ]]; then
    sample "$dir/responses.jsonl" "$policy" "$N" "$SEED" "$TEMPERATURES"
  else
    sample_with_enhancer
  fi
  case $LOSS in # the response that optimism is about
    xpo) part=x sample "$dir/explored.jsonl" "$SFT_MODEL" 1 $((SEED + 1)) 1.0 ;;
    selm) part=x sample "$dir/explored.jsonl" "$policy" 1 $((SEED + 1)) 0.0 ;;
  esac
  if [[ $PAIRING == self_play ]]; then
    step 4 "$made" python annotation/2c_self_play.py --instructions_file "$PROMPTS" \
      --responses_file "$dir/responses.jsonl" --output_file "$made"
    pairs+=("$made")
    return
  fi
  local shards=$processes order=$dir/responses.jsonl
  for name in "${annotators[@]}"; do
    if ((${#annotators[@]} == 1)); then
      annotate 3 "$name" "$dir/responses.jsonl" "$dir/rewards.jsonl" --n "$N"
    else
      rewards+=("$dir/rewards_$name.jsonl")
      part=${letter[$name]} annotate 3 "$name" "$dir/responses.jsonl" "${rewards[-1]}" --n "$N"
    fi
  done
  shards=1
  # shellcheck disable=SC2086
  [[ -z ${rewards[*]} ]] || step 3 "$dir/rewards.jsonl" python annotation/1e_combined.py \
    --rewards_files "${rewards[@]}" ${ANNOTATOR_WEIGHTS:+--weights $ANNOTATOR_WEIGHTS} --output_file "$dir/rewards.jsonl"
  case $LOSS in
    raft)
      made=$dir/best.jsonl
      step 4 "$made" python annotation/2b_best.py --rewards_file "$dir/rewards.jsonl" --n "$N" \
        --length_penalty "$LENGTH_PENALTY" --for_training --output_file "$made"
      pairs+=("$made")
      return
      ;;
    dpa)
      made=$dir/best.jsonl
      # shellcheck disable=SC2086
      step 4 "$made" python annotation/2e_directional.py --rewards_file "$dir/rewards.jsonl" \
        --helpfulness $HELPFULNESS --verbosity $VERBOSITY --output_file "$made"
      pairs+=("$made")
      return
      ;;
    sppo) more=(--win_probabilities) ;;
    xpo | selm) more=(--explored_file "$dir/explored.jsonl") ;;
  esac
  if [[ $PAIRING == uncertain ]]; then
    ((t == 1)) || earlier=(--earlier_files "${uncertain[@]}")
    step 4 "$made" python annotation/2d_uncertain_pairs.py --model_name_or_path "$REWARD_MODEL" --n "$N" \
      --rewards_file "$dir/rewards.jsonl" "${earlier[@]}" \
      --length_penalty "$LENGTH_PENALTY" --dtype "$DTYPE" --output_file "$made"
    uncertain+=("$made")
    pairs+=("$made")
    return
  fi
  step 4 "$made" python annotation/2_pairs.py --rewards_file "$dir/rewards.jsonl" --n "$N" \
    --pairing "$PAIRING" --min_margin "$MIN_MARGIN" --length_penalty "$LENGTH_PENALTY" --seed "$SEED" "${more[@]}" \
    --output_file "$made"
  pairs+=("$made")
}

optimise() { # optimise START REFERENCE: step 5, the next policy by LOSS
  local loss=() script=dpo/1_dpo.py flags=(--ref_model_name_or_path "$2" --beta "$BETA" --max_length "$MAX_LENGTH")
  # shellcheck disable=SC2206
  case $LOSS in
    kto) script=dpo/1b_kto.py ;;
    raft | dpa) script=sft/2_finetune.py flags=(--max_length "$MAX_LENGTH") ;;
    rloo) script=dpo/1c_rloo.py flags=(--reward_model_name_or_path "$REWARD_MODEL" --beta "$BETA"
      --num_generations "$N" --max_completion_length "$MAX_NEW_TOKENS") ;;
    *) loss=(--loss_type $LOSS) ;;
  esac
  # shellcheck disable=SC2086
  train 5 "$policy" "$script" --model_name_or_path "$1" "${flags[@]}" \
    --dataset_name "${pairs[@]}" ${OFFLINE_PAIRS:+"$OUT/offline_pairs.jsonl"} \
    "${template[@]}" "${loss[@]}" --learning_rate "${rates[t - 1]:-$LEARNING_RATE}" --num_train_epochs "$EPOCHS" $dpo_batch $DPO_OPTIONS
}

# Iteration 0: data, base model, initial policy pi_0, reward model.
t=0
trained=() policies=()
if [[ -n $WORLD ]]; then
  # shellcheck disable=SC2086 # several options in one variable
  step 0 "$OUT/world/evaluation.jsonl" python "$WORLD/1_data.py" --output_dir "$OUT/world" --seed "$SEED" $WORLD_OPTIONS
  [[ -z $EVAL_PROMPTS || -n $CLEAN || $PAIRING == self_play ]] || count_prompts
  [[ -n $SFT_MODEL || $BASE_MODEL != "$OUT/base" ]] ||
    train 1 "$BASE_MODEL" "$WORLD/2_base_model.py" --dataset_name "$OUT/world/corpus.jsonl"
fi
if [[ -z $EVAL_PROMPTS ]]; then # a thousand of the pool
  EVAL_PROMPTS=$OUT/evaluation.jsonl
  # shellcheck disable=SC2086
  part=e step 2 "$EVAL_PROMPTS" python generation/1_prompts.py --datasets $PROMPTS --size 1000 \
    --splits validation test --seed "$SEED" --output_file "$EVAL_PROMPTS"
fi
if [[ -n $CLEAN ]]; then # the pool of all rounds
  # shellcheck disable=SC2086
  part=c step 2 "$OUT/prompts_all.jsonl" python generation/1_prompts.py --datasets $PROMPTS --size 0 \
    --exclude_files "$EVAL_PROMPTS" --output_file "$OUT/prompts_all.jsonl"
  PROMPTS=$OUT/prompts.jsonl
  part=d clean "$OUT/prompts_all.jsonl" "$PROMPTS"
fi
if [[ -z $SFT_MODEL || $PAIRING == self_play ]]; then
  converted=$OUT/instructions${CLEAN:+_all}.jsonl
  # shellcheck disable=SC2086
  part=${CLEAN:+a} step 2 "$converted" python sft/1_instructions.py --datasets $SFT_DATA --output_file "$converted"
  [[ -z $CLEAN ]] || part=b clean "$converted" "$OUT/instructions.jsonl"
fi
[[ $PAIRING != self_play ]] || PROMPTS=$OUT/instructions.jsonl
count_prompts
if [[ -z $SFT_MODEL ]]; then
  SFT_MODEL=$OUT/sft
  # shellcheck disable=SC2086
  train 3 "$SFT_MODEL" sft/2_finetune.py --model_name_or_path "$BASE_MODEL" --dataset_name "$OUT/instructions.jsonl" \
    "${template[@]}" --learning_rate "$SFT_LEARNING_RATE" --num_train_epochs "$SFT_EPOCHS" --max_length "$MAX_LENGTH" $sft_batch $SFT_OPTIONS
  trained+=("$SFT_MODEL") policies+=("$SFT_MODEL")
fi
learn_rm="" learn_pm="" learn_armorm=""
[[ -n $REWARD_MODEL || -z $PREFERENCES ]] || learn_rm=1 REWARD_MODEL=$OUT/reward_model
[[ -n $PREFERENCE_MODEL ]] || ! uses preference_model || learn_pm=1 PREFERENCE_MODEL=$OUT/preference_model
[[ -n $ARMORM ]] || ! uses armorm || learn_armorm=1 ARMORM=$OUT/armorm
rm_template=() pm_template=() # a start of another family has a template of its own
[[ -n $RM_START ]] || rm_template=("${template[@]}")
[[ -n $PM_START ]] || pm_template=("${template[@]}")
compared=(--dataset_name "$OUT/preferences.jsonl" --held_out_name "$OUT/preferences_held_out.jsonl")
if [[ -n $learn_rm$learn_pm$learn_armorm ]]; then
  # shellcheck disable=SC2086
  step 4 "$OUT/preferences.jsonl" python reward_modeling/1_preferences.py --datasets $PREFERENCES --seed "$SEED" \
    --held_out_file "$OUT/preferences_held_out.jsonl" --output_file "$OUT/preferences.jsonl"
fi
if [[ -n $learn_rm ]]; then
  # shellcheck disable=SC2086
  part=a train 5 "$REWARD_MODEL" reward_modeling/2a_bradley_terry.py --model_name_or_path "${RM_START:-$SFT_MODEL}" "${compared[@]}" \
    "${rm_template[@]}" --learning_rate "$RM_LEARNING_RATE" --num_train_epochs "$RM_EPOCHS" --max_length "$MAX_LENGTH" $rm_batch $RM_OPTIONS
  trained+=("$REWARD_MODEL")
fi
if [[ -n $learn_pm ]]; then
  # shellcheck disable=SC2086
  part=b train 5 "$PREFERENCE_MODEL" reward_modeling/2b_preference_model.py --model_name_or_path "${PM_START:-$SFT_MODEL}" \
    "${compared[@]}" "${pm_template[@]}" --learning_rate "$PM_LEARNING_RATE" --num_train_epochs "$PM_EPOCHS" $pm_batch $PM_OPTIONS
  trained+=("$PREFERENCE_MODEL")
fi
if [[ -n $learn_armorm ]]; then # on the reward model's hidden states; the gate is small: one process, no options of TRL
  # shellcheck disable=SC2086
  part=c processes=1 train 5 "$ARMORM" reward_modeling/2c_armorm.py --model_name_or_path "$REWARD_MODEL" \
    --ratings_name "$RATINGS" "${compared[@]}" $ARMORM_OPTIONS
  trained+=("$ARMORM")
fi
evaluate sft "$SFT_MODEL"

if [[ -n $OFFLINE_PAIRS ]]; then
  # shellcheck disable=SC2086
  part=_offline step 4 "$OUT/offline_pairs.jsonl" python reward_modeling/1_preferences.py --datasets $OFFLINE_PAIRS \
    --size "$OFFLINE_SIZE" --seed "$SEED" --output_file "$OUT/offline_pairs.jsonl"
fi
policy=$SFT_MODEL previous=$SFT_MODEL
seen=("$EVAL_PROMPTS")
for ((t = 1; t <= ITERATIONS; t++)); do
  dir=$OUT/iter$t
  [[ $HISTORY == all ]] || pairs=()
  if ((online)); then sample_and_pair; fi # not by ||, which would switch -e off in it
  reference=$SFT_MODEL start=$SFT_MODEL
  [[ $REFERENCE == initial ]] || reference=$policy
  [[ $START == initial ]] || start=$policy
  previous=$policy policy=$dir/policy
  optimise "$start" "$reference"
  trained+=("$policy") policies+=("$policy")
  evaluate "iter$t" "$policy"
done

t=$((ITERATIONS + 1))
report=()
if [[ $MEASURE != none ]]; then
  dir=$OUT/measures
  read -ra names <<<"$MEASURE"
  bench=("$BENCH")
  [[ -z $learn_rm$learn_pm$learn_armorm ]] || bench+=("$OUT/preferences_held_out.jsonl")
  step 1 "$dir/bench.jsonl" python reward_modeling/3_rewardbench.py --datasets "${bench[@]}" \
    --output_file "$dir/bench.jsonl"
  benched=() sampled=()
  for name in "${names[@]}"; do
    benched+=("$dir/bench_$name.jsonl") sampled+=("$dir/responses_$name.jsonl")
    part=${letter[$name]}
    method=()
    [[ $name != preference_model && $name != llm_judge ]] || method=(--method all_pairs)
    shards=$processes order=$dir/bench.jsonl annotate 2 "$name" "$dir/bench.jsonl" "${benched[-1]}" --n 0 "${method[@]}"
    [[ $name != llm_judge ]] || method=()
    ((online == 0)) ||
      annotate 3 "$name" "$OUT/iter1/responses.jsonl" "${sampled[-1]}" --shard 0 --num_shards 8 "${method[@]}"
  done
  part=""
  step 4 "$dir/rewardbench.json" python reward_modeling/3_rewardbench.py --bench_file "$dir/bench.jsonl" \
    --rewards_files "${benched[@]}" --names "${names[@]}" --output_dir "$dir"
  ((online == 0)) || step 5 "$dir/length_bias.json" python reward_modeling/4_length_bias.py \
    --rewards_files "${sampled[@]}" --names "${names[@]}" --output_dir "$dir"
  [[ ${#bench[@]} == 1 ]] || step 6 "$dir/calibration.json" python reward_modeling/5_calibration.py \
    --rewards_files "${benched[@]}" --names "${names[@]}" --output_dir "$dir"
  report=(--measures "$dir/rewardbench.json")
  ((online == 0)) || report+=("$dir/length_bias.json")
  [[ ${#bench[@]} == 1 ]] || report+=("$dir/calibration.json")
fi
benchmark sft "$SFT_MODEL"
for ((i = 1; i <= ITERATIONS; i++)); do
  benchmark "iter$i" "$OUT/iter$i/policy"
done
if [[ $VALIDATION != true_reward && $VALIDATION != reward_model ]]; then # all policies' answers to a prompt, side by side
  part=m step 9 "$OUT/eval/validation_answers.jsonl" python generation/2b_merge.py --responses_files "${answered[@]}" \
    --split validation --output_file "$OUT/eval/validation_answers.jsonl"
  method=()
  [[ -z $pairwise ]] || method=(--method all_pairs)
  part=v shards=$processes order=$OUT/eval/validation_answers.jsonl annotate 9 "$VALIDATION" \
    "$OUT/eval/validation_answers.jsonl" "$OUT/eval/validation.jsonl" --n "${#answered[@]}" "${method[@]}"
  report+=(--validation_file "$OUT/eval/validation.jsonl")
fi
[[ -z ${benchmarked[*]} ]] || report+=(--benchmarks "${benchmarked[@]}")
step 9 "$OUT/results.json" python eval/3_report.py --answers "${measured[@]}" --training "${trained[@]}" \
  --settings "$OUT/settings" --log_dir "$OUT/log" --output_dir "$OUT" "${report[@]}"
t=$((t + 1))
((${#policies[@]} == 0)) || step 0 "${policies[-1]}/README.md" python eval/4_model_cards.py \
  --results_file "$OUT/results.json" --policies "${policies[@]}"
[[ -z $DRY_RUN ]] || check
[[ -n $DRY_RUN ]] || ((ran)) || echo "All is up to date: $OUT/report.md, $OUT/report.html, $OUT/results.json"
exit
}
