# shellcheck shell=bash
# What follows from the variables where they are left empty, and which do not go together. An optimiser's own conditions
# stand in its file, in a function check_NAME.

check_variables() {
  split_lists
  ((SEED < 2 ** 32)) || die "SEED=$SEED: below 2^32 is needed"
  check_directory
  fill_in_prompts
  check_rounds
  check_annotators
  fill_in_validation
  check_validation
  [[ $DRY_RUN != no ]] || check_files
  check_keys
  check_models
  check_judge
  ! has_responses || check_sampling
  check_tool
  set_processes
  set_flags
  local name
  check_batches
  check_offline_pairs
  for name in "${optimisers[@]}"; do
    name=$(basename "$name" .sh)
    if declare -F "check_$name" >/dev/null; then "check_$name"; fi
  done
}

split_lists() {
  read -ra annotators <<<"$ANNOTATOR"
  read -ra weights <<<"$ANNOTATOR_WEIGHTS"
  read -ra pools <<<"$PROMPTS_BY_ROUND"
  read -ra rates <<<"$DPO_LEARNING_RATES"
}

set_flags() { # flags that several stages share
  template=() # arguments of the policies' chat template
  [[ -z $CHAT_TEMPLATE_KWARGS ]] || template=(--chat_template_kwargs "$CHAT_TEMPLATE_KWARGS")
  model_len=(${MAX_MODEL_LEN:+--max_model_len "$MAX_MODEL_LEN"}) # of every engine
  sampler=(generation/2_responses.py) answerer=(generation/2_responses.py) # of the rounds, of the evaluation
  if [[ $TOOL != none ]]; then
    local options
    read -ra options <<<"$TOOL_OPTIONS"
    sampler=(generation/2c_tool_responses.py --run_generated_code --max_turns "$MAX_TURNS" "${options[@]}")
    answerer=(generation/2c_tool_responses.py --run_generated_code --max_turns "$EVAL_MAX_TURNS" "${options[@]}")
  fi
  rm_code=() # for 1a_reward_model.py, which alone runs code of a reward model's own
  [[ $RM_TRUST_REMOTE_CODE == no ]] || rm_code=(--trust_remote_code)
  [[ -z $RM_REVISION ]] || rm_code+=(--revision "$RM_REVISION")
  verifiers=() # for 1d_verifier.py: those that rows may name, and whether programs run
  local word
  for word in $VERIFIERS; do verifiers+=(--verifier "$word"); done
  [[ $RUN_GENERATED_CODE == no ]] || verifiers+=(--run_generated_code)
}

uses() { # uses ANNOTATOR: it is asked to annotate the responses of a round, to choose a policy, or to be measured
  [[ " $ANNOTATOR $VALIDATION $MEASURE " == *" $1 "* ]]
}

check_directory() {
  [[ ! $OUT =~ ^-|[[:space:]] ]] || die "OUT=$OUT: no dash at its start and no blanks"
  case $(realpath -m -- "$OUT") in
    / | "$PWD" | "$(realpath -m -- ~)") die "OUT=$OUT: not a place for a run" ;;
  esac
}

fill_in_prompts() {
  [[ -n $PROMPTS ]] || PROMPTS=$PROMPTS_BY_ROUND # the evaluation's are drawn from them
  if [[ -n $PROMPTS_BY_ROUND && ! -v set_by[PROMPTS_PER_ITERATION] ]]; then PROMPTS_PER_ITERATION=0; fi
  [[ $OFFLINE_SIZE == 0 || -n $OFFLINE_PAIRS ]] || OFFLINE_PAIRS=$PREFERENCES
}

check_rounds() { # how many there are, and what each is given
  [[ -n $PROMPTS ]] || die "$RECIPE: PROMPTS must be set"
  ((${#pools[@]} == 0 || ${#pools[@]} == ITERATIONS)) ||
    die "PROMPTS_BY_ROUND=$PROMPTS_BY_ROUND: ${#pools[@]} for ITERATIONS=$ITERATIONS; give one a round"
  ((PROMPTS_PER_ITERATION || ITERATIONS < 2 || ${#pools[@]})) ||
    die "PROMPTS_PER_ITERATION=0: the first round would take all of PROMPTS; set ITERATIONS=1 or PROMPTS_BY_ROUND"
  [[ -z $EVAL_POOL || -z $EVAL_PROMPTS ]] || die "EVAL_POOL=$EVAL_POOL: without effect with EVAL_PROMPTS"
  [[ -z $PROMPTS_BY_ROUND || -z $CLEAN ]] || die "PROMPTS_BY_ROUND: not with CLEAN"
  ((${#rates[@]} == 0 || ${#rates[@]} == ITERATIONS)) ||
    die "DPO_LEARNING_RATES=$DPO_LEARNING_RATES: ${#rates[@]} for ITERATIONS=$ITERATIONS; give one a round"
}

check_annotators() { # each writes rewards_NAME
  local name
  declare -A used=()
  for name in "${annotators[@]##*/}"; do
    name=${name%.py}
    [[ ! -v used[$name] ]] || die "ANNOTATOR=$ANNOTATOR: two of one name"
    used[$name]=yes
  done
  ((${#weights[@]} == 0 || ${#weights[@]} == ${#annotators[@]})) ||
    die "ANNOTATOR_WEIGHTS=$ANNOTATOR_WEIGHTS: ${#weights[@]} for ${#annotators[@]} of ANNOTATOR"
  check_pessimism
  for name in $VERIFIERS; do
    [[ $name =~ ^[A-Za-z_][A-Za-z_0-9]*=.+\.py$ ]] || die "VERIFIERS=$name: not of the form NAME=FILE.py"
  done
}

check_pessimism() { # how far several annotators disagree
  local weight
  [[ $PESSIMISM != 0 ]] || return 0
  ((${#annotators[@]} > 1)) || die "PESSIMISM=$PESSIMISM: one annotator cannot disagree; name several in ANNOTATOR"
  for weight in "${weights[@]}"; do
    is_number "$weight" && [[ ${weight%%[eE]*} =~ [1-9] ]] || # a pattern: bash has no fractions
      die "PESSIMISM=$PESSIMISM: with ANNOTATOR_WEIGHTS above 0 only"
  done
}

knows_truth() { [[ -n $WORLD && -e $WORLD/3_true_reward.py ]]; } # a world whose true reward is another than right or wrong

fill_in_validation() { # who chooses the best policy: the true reward of a tiny world, the reward model, or an annotator
  if [[ -z $VALIDATION ]]; then
    VALIDATION=${annotators[0]}
    [[ $VALIDATION != policy || -n $REWARD_MODEL$PREFERENCES$WORLD ]] ||
      die "ANNOTATOR=policy: it changes by the round; set VALIDATION, who chooses the best policy"
    [[ -z $REWARD_MODEL$PREFERENCES ]] || VALIDATION=reward_model
    ! knows_truth || VALIDATION=true_reward
  fi
  pairwise="" # it compares policies, it does not score one
  [[ $VALIDATION != preference_model && ($VALIDATION != llm_judge || $JUDGE_METHOD == rating) ]] || pairwise=1
}

check_validation() {
  is_allowed "$VALIDATION" true_reward reward_model preference_model armorm llm_judge verifier FILE.py ||
    die "VALIDATION=$VALIDATION: one of true_reward reward_model preference_model armorm llm_judge verifier FILE.py"
  [[ $VALIDATION != true_reward ]] || knows_truth || die "VALIDATION=true_reward: only in a synthetic world, by WORLD"
  [[ -z $pairwise ]] || ((ITERATIONS)) ||
    die "VALIDATION=$VALIDATION: it compares policies, and ITERATIONS=0 makes no second one"
  if [[ $VALIDATION == verifier && -f $EVAL_PROMPTS ]] &&
    ! gzip -cdf "$EVAL_PROMPTS" | awk 'NF && !/"(answer|verifier)"/ {exit 1}'; then
    die "VALIDATION=verifier: a row of $EVAL_PROMPTS has no answer"
  fi
}

check_files() { # what the variables name is there, on the hub, or made by the run below OUT
  local name word
  for name in PROMPTS PROMPTS_BY_ROUND EVAL_PROMPTS EVAL_POOL SFT_DATA PREFERENCES RATINGS OFFLINE_PAIRS EVAL_QUESTIONS \
    REWARD_BENCH BASE_MODEL SFT_MODEL REWARD_MODEL RM_START PREFERENCE_MODEL PM_START ARMORM; do
    for word in ${!name}; do
      [[ ! -e $word && $word != "$OUT"/* ]] || continue
      if [[ $name =~ ^(EVAL_PROMPTS|RATINGS)$ ]] || is_file "$word"; then die "$name=$word: no such file"; fi
    done
  done
  for word in $ANNOTATOR $VALIDATION $MEASURE $PAIRING $VERIFIERS; do
    [[ ! $word == *.py || -f ${word#*=} ]] || die "$word: no such file"
  done
}

is_file() { # is_file NAME: never a name on the hub
  [[ $1 =~ ^[./~] || $1 =~ ^[^:]*\.(jsonl?|parquet)(\.gz)?$ || $1 =~ ^[^:]*/[^:]*/ ]]
}

check_tool() { # it runs programs that the policy writes
  local name
  if [[ $TOOL == none ]]; then
    [[ -z $TOOL_OPTIONS ]] || die "TOOL_OPTIONS=$TOOL_OPTIONS: without effect with TOOL=none"
    return 0
  fi
  [[ $RUN_GENERATED_CODE == yes ]] ||
    die "TOOL=$TOOL: it runs programs that the policy writes, in a sandbox; RUN_GENERATED_CODE=yes allows it"
  for name in xpo selm rloo nash_md ipo_md self_play offline; do # some of their responses have no tool
    [[ " ${optimisers[*]} " != *" $name "* ]] || die "TOOL=$TOOL: not with OPTIMISER=$name"
  done
}

check_keys() { # what the settings, the logs and the model cards keep holds no keys
  local name
  local flag='--(hub_token|[a-z_]*(api_key|apikey|secret|password|access_token))([= ]|$)'
  local value='(^|[^A-Za-z0-9])(hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9_-]{16}|gh[ps]_[A-Za-z0-9]{20}|Bearer )'
  [[ ! $JUDGE_URL =~ ^[a-z]+://[^/]*@|[?#] ]] ||
    die "JUDGE_URL: an address without user, password and query; a key belongs in OPENAI_API_KEY"
  for name in "${SETTINGS[@]}"; do
    [[ ! ${!name} =~ $flag && ! ${!name} =~ $value ]] ||
      die "$name: it holds a key; give keys in the environment (HF_TOKEN, OPENAI_API_KEY, WANDB_API_KEY)"
  done
}

check_sampling() { # of every policy the same number of responses at each temperature
  local temperatures of_policy=$N temperature
  read -ra temperatures <<<"$TEMPERATURES"
  if [[ $ENHANCER != none ]]; then
    ((N % 2 == 0)) || die "N=$N: with ENHANCER=$ENHANCER each policy gives half of them"
    of_policy=$((N / 2))
  fi
  ((${#temperatures[@]} && of_policy % ${#temperatures[@]} == 0)) ||
    die "N=$N: $of_policy responses of a policy do not divide by the ${#temperatures[@]} of TEMPERATURES=$TEMPERATURES"
  for temperature in "${temperatures[@]}"; do
    [[ ! $temperature =~ ^0*\.?0*(e.*)?$ ]] || ((of_policy == ${#temperatures[@]})) ||
      die "TEMPERATURES=$TEMPERATURES: at 0 there is one response, the greedy one; give each of the N=$N a temperature"
  done
  [[ -z $MAX_MODEL_LEN ]] || ((MAX_MODEL_LEN > MAX_NEW_TOKENS)) ||
    die "MAX_MODEL_LEN=$MAX_MODEL_LEN: more than MAX_NEW_TOKENS is needed"
}

check_models() { # each is given, or can be trained; code of others is run at a named commit only
  local name
  [[ -n $SFT_MODEL || (-n $BASE_MODEL && -n $SFT_DATA) ]] || die "$RECIPE: set SFT_MODEL, or BASE_MODEL and SFT_DATA"
  if [[ -z $REWARD_MODEL$PREFERENCES ]]; then # none is trained, and none scores the answers to the evaluation prompts
    for name in ANNOTATOR VALIDATION MEASURE; do
      [[ " ${!name} " != *" reward_model "* ]] || die "$RECIPE: set REWARD_MODEL or PREFERENCES, for $name=${!name}"
    done
  fi
  ! uses preference_model || [[ -n $PREFERENCE_MODEL || -n $PREFERENCES ]] ||
    die "$RECIPE: set PREFERENCE_MODEL or PREFERENCES"
  ! uses armorm || [[ -n $ARMORM || (-n $PREFERENCES && -n $RATINGS) ]] ||
    die "$RECIPE: set ARMORM, or PREFERENCES and RATINGS"
  if uses armorm && [[ -n $ARMORM && ! -e $ARMORM && $ARMORM =~ ^[^/]+/[^/]+$ ]]; then # a name on the hub
    [[ $ARMORM_TRUST_REMOTE_CODE == yes && $ARMORM_REVISION =~ ^[0-9a-f]{40}$ ]] ||
      die "ARMORM=$ARMORM: it runs code from the hub: set ARMORM_TRUST_REMOTE_CODE=yes and ARMORM_REVISION to a commit"
  fi
  [[ $RM_TRUST_REMOTE_CODE == no && -z $RM_REVISION ]] || check_reward_model_code
}

check_reward_model_code() {
  [[ -n $REWARD_MODEL && ! " ${optimisers[*]} " =~ \ (rloo|uncertain)\  ]] ||
    die "RM_TRUST_REMOTE_CODE, RM_REVISION: for a REWARD_MODEL that is only asked (not OPTIMISER=rloo, uncertain)"
  ! uses armorm || [[ -n $ARMORM ]] || die "RM_TRUST_REMOTE_CODE, RM_REVISION: an ArmoRM is not trained on such a model"
  [[ $RM_TRUST_REMOTE_CODE == no || -e $REWARD_MODEL || $RM_REVISION =~ ^[0-9a-f]{40}$ ]] ||
    die "REWARD_MODEL=$REWARD_MODEL: it runs code from the hub: set RM_REVISION to a commit"
}

check_judge() {
  if uses llm_judge || [[ $EVALS =~ alpaca_eval|mt_bench|arena_hard ]]; then
    [[ -n $JUDGE_MODEL && (-n $JUDGE_URL || (-n $WORLD && -e $WORLD/4_judge.py)) ]] || die "$RECIPE: set JUDGE_URL and JUDGE_MODEL"
    [[ $JUDGE_OPTIONS != *--max_tokens* || $EVALS != *alpaca_eval* || $ALPACA_EVAL_OPTIONS == *--no_logprobs* ]] ||
      die "JUDGE_OPTIONS=$JUDGE_OPTIONS: a judge that thinks needs ALPACA_EVAL_OPTIONS=--no_logprobs"
  fi
}

set_processes() { # a process a GPU, and those that share one model of vLLM's
  per_node=$((GPUS > 1 ? GPUS : 1))
  processes=$((per_node * NODES))
  ((per_node % TENSOR_PARALLEL == 0)) ||
    die "TENSOR_PARALLEL=$TENSOR_PARALLEL does not divide the $per_node GPUs of a node"
  engines=$((processes / TENSOR_PARALLEL))
  IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-}" # those that the caller leaves to the run
  ((${#gpus[@]})) || mapfile -t gpus < <(seq 0 $((per_node - 1)))
  ((${#gpus[@]} >= per_node)) || die "GPUS=$GPUS: CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES names ${#gpus[@]}"
  hosts=(node{0..99}) # what a dry run prints
  if ((NODES > 1)) && [[ $DRY_RUN == no ]]; then
    [[ -n ${SLURM_JOB_NODELIST:-} ]] || die "NODES=$NODES: more than one only in a job of Slurm, see recipes/slurm"
    mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    ((${#hosts[@]} == NODES)) || die "NODES=$NODES, but the job has ${#hosts[@]}: ${hosts[*]}"
  fi
  srun=(srun --overlap --kill-on-bad-exit "--cpus-per-task=${SLURM_CPUS_ON_NODE:-1}" --cpu-bind=none) # no step waits for another
}

batch() { # batch NAME: the flags that give that global batch: rows of a process at once x processes x accumulation
  local rows=$((${!1} / processes)) size=$PER_DEVICE_BATCH_SIZE
  ((${!1} % processes == 0)) || die "$1=${!1} does not divide by $processes processes"
  ((size <= rows)) || size=$rows
  while ((rows % size)); do size=$((size - 1)); done
  echo "--per_device_train_batch_size $size --gradient_accumulation_steps $((rows / size))"
}

check_offline_pairs() { # there is something to train on them
  local name
  [[ -n $OFFLINE_PAIRS ]] || return 0
  for name in raft dpa rloo nash_md; do
    [[ " ${optimisers[*]} " != *" $name "* ]] ||
      die "OFFLINE_PAIRS=$OFFLINE_PAIRS: OPTIMISER=$name is not trained on pairs"
  done
}

check_batches() { # of what is trained
  [[ -n $SFT_MODEL ]] || batch SFT_BATCH_SIZE
  [[ -n $REWARD_MODEL || -z $PREFERENCES ]] || batch RM_BATCH_SIZE
  [[ -n $PREFERENCE_MODEL ]] || ! uses preference_model || batch PM_BATCH_SIZE
  ((ITERATIONS == 0)) || batch DPO_BATCH_SIZE
} >/dev/null
