# shellcheck shell=bash disable=SC2046,SC2048,SC2086,SC2128,SC2178,SC2206,SC2207
# One function a stage: the command that it runs. The files of driver/optimisers redefine those in which they differ.
# `shards=N order=FILE step ...`: N processes share the rows of FILE. Variables of several words, such as *_OPTIONS, stand
# without quotes: a word each. What the stages hand on to later ones:
instructions=""         # file of the fine-tuning data
learned_armorm=""       # whether ArmoRM is trained here
held_out=""             # file of the preferences that no reward model is trained on
offline_pairs=()        # file of preferences of others
trained=() policies=()  # models that are trained here, and the policies among them
answered=() kl_files=() # of every policy: answers to the evaluation prompts, and these with rewards and KL
annotator_measures=()   # files of MEASURE
benchmarked=()          # files of EVALS
validated=()            # flags of the report, for VALIDATION

# Data, initial policy pi_0, reward models

make_world() { # the data of a synthetic world: of the files that the variables name
  [[ -n $WORLD ]] || return 0
  local rows=("$OUT/world/evaluation.jsonl") file
  for file in $SFT_DATA $PREFERENCES $RATINGS $REWARD_BENCH $PROMPTS; do
    [[ $file != "$OUT"/world/* ]] || rows+=("$file")
  done
  step "${rows[*]}" python "$WORLD/1_data.py" --output_dir "$OUT/world" --seed "$SEED" $WORLD_OPTIONS
}

make_base_model() { # of a synthetic world's corpus
  local script=$WORLD/2_base_model.py
  [[ -n $WORLD && -z $SFT_MODEL && $BASE_MODEL == "$OUT/base" ]] || return 0
  [[ -e $script ]] || script=recipes/tiny/2_base_model.py
  train "$BASE_MODEL" "$script" --dataset_name "$OUT/world/corpus.jsonl" -- $BASE_MODEL_OPTIONS
}

draw_evaluation_prompts() { # unless EVAL_PROMPTS gives them: a thousand of EVAL_POOL
  [[ -z $EVAL_PROMPTS ]] || return 0
  EVAL_PROMPTS=$OUT/evaluation.jsonl
  step "$EVAL_PROMPTS" python generation/1_prompts.py --datasets ${EVAL_POOL:-$PROMPTS} --size 1000 --splits validation test \
    --seed "$SEED" --output_file "$EVAL_PROMPTS"
}

prepare_pool() { # the prompts that all rounds draw from
  [[ -z $CLEAN ]] || clean_pool
  count_pool
}

clean_pool() {
  step "$OUT/prompts_all.jsonl" python generation/1_prompts.py --datasets $PROMPTS --size 0 \
    --exclude_files "$EVAL_PROMPTS" --output_file "$OUT/prompts_all.jsonl"
  PROMPTS=$OUT/prompts.jsonl
  clean "$OUT/prompts_all.jsonl" "$PROMPTS"
}

clean() { # clean ROWS WHAT_IS_LEFT: by the flags of CLEAN
  step "$2" python data/1_clean.py --input_file "$1" --output_file "$2" $CLEAN
}

draws_prompts() { ((ITERATIONS)); } # does a round take prompts from the pool? Offline DPO does not
has_responses() { draws_prompts; }  # does it leave responses, to measure annotators on? RLOO does not

count_pool() { # are there prompts for all rounds? Asked before anything is trained
  local sets=("$PROMPTS") needed=$((ITERATIONS * PROMPTS_PER_ITERATION)) set
  draws_prompts || return 0
  if ((${#pools[@]})); then
    sets=("${pools[@]}") needed=$PROMPTS_PER_ITERATION # of each
  fi
  for set in "${sets[@]}"; do
    condition "$OUT/iter$ITERATIONS/prompts.jsonl" python generation/1_prompts.py --datasets $set \
      --exclude_files "$EVAL_PROMPTS" --at_least $((needed ? needed : 1))
  done
}

convert_instructions() {
  [[ -z $instructions ]] || return 0 # listed already
  instructions=$OUT/instructions.jsonl
  local converted=$OUT/instructions${CLEAN:+_all}.jsonl
  step "$converted" python sft/1_instructions.py --datasets $SFT_DATA --output_file "$converted"
  [[ -z $CLEAN ]] || clean "$converted" "$instructions"
}

fine_tune() { # pi_0, unless SFT_MODEL gives it (3.1)
  [[ -z $SFT_MODEL ]] || return 0
  convert_instructions
  make_base_model
  SFT_MODEL=$OUT/sft
  train "$SFT_MODEL" sft/2_finetune.py --model_name_or_path "$BASE_MODEL" --dataset_name "$instructions" \
    "${template[@]}" --learning_rate "$SFT_LEARNING_RATE" --num_train_epochs "$SFT_EPOCHS" \
    --max_length "$SFT_MAX_LENGTH" $(batch SFT_BATCH_SIZE) -- $SFT_OPTIONS
  trained+=("$SFT_MODEL") policies+=("$SFT_MODEL")
}

train_reward_models() { # those that are used and not given (2.1)
  local learn_rm="" learn_pm="" compared=(--dataset_name "$OUT/preferences.jsonl")
  compared+=(--held_out_name "$OUT/preferences_held_out.jsonl")
  [[ -n $REWARD_MODEL || -z $PREFERENCES ]] || learn_rm=1 REWARD_MODEL=$OUT/reward_model
  [[ -n $PREFERENCE_MODEL ]] || ! uses preference_model || learn_pm=1 PREFERENCE_MODEL=$OUT/preference_model
  [[ -n $ARMORM ]] || ! uses armorm || learned_armorm=1 ARMORM=$OUT/armorm
  [[ -n $learn_rm$learn_pm$learned_armorm ]] || return 0
  held_out=$OUT/preferences_held_out.jsonl
  step "$OUT/preferences.jsonl $held_out" python reward_modeling/1_preferences.py --datasets $PREFERENCES \
    --seed "$SEED" --held_out_file "$held_out" --output_file "$OUT/preferences.jsonl"
  [[ -z $learn_rm ]] || train_bradley_terry
  [[ -z $learn_pm ]] || train_preference_model
  [[ -z $learned_armorm ]] || train_armorm
}

train_bradley_terry() {
  local rm_template=("${template[@]}")
  [[ -z $RM_START ]] || rm_template=() # a start of another family has a template of its own
  train "$REWARD_MODEL" reward_modeling/2a_bradley_terry.py --model_name_or_path "${RM_START:-$SFT_MODEL}" \
    "${compared[@]}" "${rm_template[@]}" --learning_rate "$RM_LEARNING_RATE" --num_train_epochs "$RM_EPOCHS" \
    --max_length "$RM_MAX_LENGTH" $(batch RM_BATCH_SIZE) -- $RM_OPTIONS
  trained+=("$REWARD_MODEL")
}

train_preference_model() {
  local pm_template=("${template[@]}")
  [[ -z $PM_START ]] || pm_template=()
  train "$PREFERENCE_MODEL" reward_modeling/2b_preference_model.py --model_name_or_path "${PM_START:-$SFT_MODEL}" \
    "${compared[@]}" "${pm_template[@]}" --learning_rate "$PM_LEARNING_RATE" --num_train_epochs "$PM_EPOCHS" \
    $(batch PM_BATCH_SIZE) -- $PM_OPTIONS
  trained+=("$PREFERENCE_MODEL")
}

train_armorm() { # on the reward model's hidden states; the gate is small: one process, no options of TRL
  processes=1 train "$ARMORM" reward_modeling/2c_armorm.py --model_name_or_path "$REWARD_MODEL" \
    --ratings_name "$RATINGS" "${compared[@]}" -- $ARMORM_OPTIONS
  trained+=("$ARMORM")
}

train() { # train DIRECTORY SCRIPT FLAGS... -- FLAGS OF THE USER'S...: with what every training shares, and the user's last
  local directory=$1 launcher=(python) flags own=() port=0
  shift
  while (($#)) && [[ $1 != -- ]]; do flags+=("$1") && shift; done
  [[ $# == 0 ]] || own=("${@:2}")
  if ((processes > 1)); then
    local shared=(--config_file "recipes/accelerate/$DISTRIBUTED.yaml" --num_processes "$processes")
    if ((NODES == 1)); then
      launcher=(accelerate launch "${shared[@]}" --main_process_port 0) # any that is free
    else
      port=$((20000 + ${SLURM_JOB_ID:-0} % 10000))
      while [[ $DRY_RUN == no ]] && (: <"/dev/tcp/localhost/$port") 2>/dev/null; do port=$((port + 1)); done
      launcher=("${srun[@]}" --nodes="$NODES" --ntasks-per-node=1 bash recipes/slurm/launch.sh "${shared[@]}"
        --num_machines "$NODES" --main_process_port "$port")
    fi
    ((GPUS)) || flags+=(--use_cpu True)
  fi
  local precision=(--bf16 False --gradient_checkpointing False --dataloader_pin_memory False)
  [[ $DTYPE == float32 ]] || precision=(--bf16 True --gradient_checkpointing True)
  step "$directory" "${launcher[@]}" "${flags[@]}" --output_dir "$directory" --seed "$SEED" "${precision[@]}" \
    --logging_steps 10 --logging_first_step True --save_steps 0.2 --save_total_limit 1 --disable_tqdm True "${own[@]}"
}

# A round of the loop

draw_prompts() { # draw_prompts PROMPTS: those of this round, none of an earlier one or of the evaluation
  step "$1" python generation/1_prompts.py --datasets ${pools[t - 1]:-$PROMPTS} --exclude_files "${seen[@]}" \
    --size "$PROMPTS_PER_ITERATION" --seed "$SEED" --output_file "$1"
  seen+=("$1")
}

sample_responses() { # sample_responses PROMPTS RESPONSES
  sample_from_policies "$1" "$2"
}

sample_from_policies() { # sample_from_policies PROMPTS RESPONSES: N to each, half of them by the enhancer if there is one (3.2)
  if [[ $ENHANCER == none ]]; then
    sample "$1" "$2" "$policy" "$N" "$SEED" "$TEMPERATURES"
  else
    sample_with_enhancer "$1" "$2"
  fi
}

sample() { # sample PROMPTS RESPONSES POLICY N SEED TEMPERATURES
  shards=$engines order=$1 step "$2" python "${sampler[@]}" --model_name_or_path "$3" --prompts_file "$1" \
    --n "$4" --temperatures $6 --max_new_tokens "$MAX_NEW_TOKENS" --dtype "$DTYPE" \
    --tensor_parallel_size "$TENSOR_PARALLEL" --seed "$5" "${template[@]}" "${model_len[@]}" --output_file "$2"
}

sample_with_enhancer() {
  local enhancer=$SFT_MODEL files=("$dir/responses_main.jsonl" "$dir/responses_enhancer.jsonl")
  [[ $ENHANCER != previous ]] || enhancer=$previous
  if [[ $ENHANCER == mixture ]]; then
    enhancer=$dir/mixture
    step "$enhancer" python dpo/2_interpolate.py --models "$policy" "$SFT_MODEL" --output_dir "$enhancer"
  fi
  sample "$1" "${files[0]}" "$policy" $((N / 2)) "$SEED" "$TEMPERATURES"
  sample "$1" "${files[1]}" "$enhancer" $((N / 2)) $((SEED + 1)) "$TEMPERATURES"
  step "$2" python generation/2b_merge.py --responses_files "${files[@]}" --output_file "$2"
}

annotate_responses() { # annotate_responses RESPONSES REWARDS: by ANNOTATOR, one or several that are combined
  local name of_each=() pessimism=()
  if ((${#annotators[@]} == 1)); then
    annotate "$ANNOTATOR" "$1" "$2" --n "$N"
    return
  fi
  for name in "${annotators[@]}"; do
    of_each+=("$dir/rewards_$(basename "$name" .py).jsonl")
    annotate "$name" "$1" "${of_each[-1]}" --n "$N"
  done
  [[ $PESSIMISM == 0 ]] || pessimism=(--pessimism "$PESSIMISM")
  step "$2" python annotation/1e_combined.py --rewards_files "${of_each[@]}" \
    ${ANNOTATOR_WEIGHTS:+--weights $ANNOTATOR_WEIGHTS} "${pessimism[@]}" --output_file "$2"
}

annotate() { # annotate ANNOTATOR RESPONSES REWARDS FLAGS...: of two equal flags the last counts
  local name=$1 from=$2 to=$3 shards=$processes order=$2 by
  shift 3
  case $name in
    reward_model) by=(annotation/1a_reward_model.py --model_name_or_path "$REWARD_MODEL" "${rm_code[@]}" --dtype "$DTYPE") ;;
    preference_model)
      by=(annotation/1b_preference_model.py --model_name_or_path "$PREFERENCE_MODEL" --dtype "$DTYPE" --method "$PM_METHOD")
      ;;
    policy) # self-rewarding: the round's policy compares its own responses
      by=(annotation/1b_preference_model.py --model_name_or_path "$policy" --dtype "$DTYPE" --method "$PM_METHOD" --bos
        "${template[@]}")
      ;;
    armorm) by=(annotation/1a_reward_model.py --model_name_or_path "$ARMORM" $(armorm_code) --dtype "$DTYPE") ;;
    llm_judge) # many requests at once by one process, beside the world's own judge
      shards=1 by=(annotation/1c_llm_judge.py --judge_model "$JUDGE_MODEL" --method "$JUDGE_METHOD" $JUDGE_OPTIONS)
      [[ -z $JUDGE_URL ]] || by+=(--judge_url "$JUDGE_URL")
      ;;
    verifier)
      by=(annotation/1d_verifier.py --method "$VERIFIER_METHOD" --pattern "$VERIFIER_PATTERN" "${verifiers[@]}")
      ;;
    *.py) # one's own
      shards=1 step "$to" python "$name" --responses_file "$from" --output_file "$to"
      return
      ;;
  esac
  [[ " $* " != *" --num_shards "* ]] || shards=1 # asked for a share only
  step "$to" python "${by[@]}" --responses_file "$from" --output_file "$to" "$@"
}

armorm_code() { # the flags that let an ArmoRM run its code: one that we have trained has this checkout's own
  if [[ -n $learned_armorm || $ARMORM_TRUST_REMOTE_CODE == yes ]] ||
    cmp -s "$ARMORM/modeling_armorm.py" reward_modeling/modeling_armorm.py; then
    echo --trust_remote_code
  fi
  [[ -z $ARMORM_REVISION ]] || echo "--revision $ARMORM_REVISION"
}

make_pairs() { # make_pairs REWARDS PAIRS: by PAIRING (3.2); adds to training_data
  pair "$1" "$2"
}

pair() { # pair REWARDS PAIRS FLAGS...
  if is_own "$PAIRING"; then
    step "$2" python "$PAIRING" --rewards_file "$1" --output_file "$2"
  else
    step "$2" python annotation/2_pairs.py --rewards_file "$1" --n "$N" --pairing "$PAIRING" --min_margin "$MIN_MARGIN" \
      --length_penalty "$LENGTH_PENALTY" --seed "$SEED" "${@:3}" --output_file "$2"
  fi
  training_data+=("$2")
}

convert_offline_pairs() { # preference data of others that every round is trained on, too
  [[ -n $OFFLINE_PAIRS ]] || return 0
  offline_pairs=("$OUT/offline_pairs.jsonl")
  step "${offline_pairs[0]}" python reward_modeling/1_preferences.py --datasets $OFFLINE_PAIRS \
    --size "$OFFLINE_SIZE" --seed "$SEED" --output_file "${offline_pairs[0]}"
}

optimise() { # optimise POLICY START REFERENCE DATA...: DPO with DPO_LOSS (eq. 5)
  train_on_pairs dpo/1_dpo.py "$@" -- --loss_type $DPO_LOSS
}

train_on_pairs() { # train_on_pairs SCRIPT POLICY START REFERENCE DATA... -- FLAGS...
  local script=$1 to=$2 start=$3 reference=$4 data=() by=(--ref_model_name_or_path "$4")
  shift 4
  while [[ $1 != -- ]]; do data+=("$1") && shift; done
  shift
  if [[ $script == dpo/1_dpo.py && " $* " == *" slic "* ]]; then
    by=() # the loss has no reference
  elif [[ $script == dpo/1_dpo.py && ! " $* $DPO_OPTIONS " =~ " --"(ld.alpha|precompute.ref.log.probs|sync.ref.model)[\ =] ]]; then
    store_reference "$reference" "$@"
    by=()
  fi
  train_policy "$to" "$script" --model_name_or_path "$start" "${by[@]}" --beta "$DPO_BETA" \
    --max_length "$DPO_MAX_LENGTH" --dataset_name "${data[@]}" "$@"
}

declare -A stored=() # {"REFERENCE FILE": that file with the reference's log-probabilities}
# store_reference REFERENCE FLAGS OF THE TRAINING...: replace each file in `data` by its copy with the reference's
# log-probabilities; a copy of an earlier round serves again.
store_reference() {
  local reference=$1 flags=(--max_length "$DPO_MAX_LENGTH" "${template[@]}") dtype=$DTYPE words i flag name key to
  [[ $DTYPE == float32 ]] || dtype=bfloat16 # as in training
  read -ra words <<<"${*:2} ${DPO_OPTIONS//=/ }"
  for i in "${!words[@]}"; do # of the method's and the user's flags those that decide on tokens and weights
    flag=${words[i]//-/_} # TRL takes --max-length, too
    case $flag in
      __max_length | __truncation_mode | __bnb_4bit_quant_type) flags+=("--${flag#__}" "${words[@]:i + 1:1}") ;;
      __assistant_only_loss | __load_in_4bit | __use_bnb_nested_quant)
        is_false "${words[i + 1]:-}" || flags+=("--${flag#__}")
        ;;
    esac
  done
  for i in "${!data[@]}"; do
    key="$reference ${data[i]}"
    if [[ ! -v stored["$key"] ]]; then
      name=$(name_of "${data[i]}")
      name=${name#"iter$t/"}
      to=$dir/${name//\//_}_reference.jsonl
      shards=$processes order=${data[i]} step "$to" python dpo/0_reference.py --model_name_or_path "$reference" \
        --dtype "$dtype" "${flags[@]}" --pairs_file "${data[i]}" --output_file "$to"
      stored["$key"]=$to
    fi
    data[i]=${stored["$key"]}
  done
}

is_false() { [[ ${1,,} =~ ^(false|f|no|n|0)$ ]]; } # as TRL reads it

train_policy() { # train_policy POLICY SCRIPT FLAGS...: with what every optimiser's training shares
  train "$1" "${@:2}" "${template[@]}" --learning_rate "${rates[t - 1]:-$DPO_LEARNING_RATE}" \
    --num_train_epochs "$DPO_EPOCHS" $(batch DPO_BATCH_SIZE) -- $DPO_OPTIONS
  trained+=("$1") policies+=("$1")
}
