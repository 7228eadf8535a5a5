#!/usr/bin/env bash
# Compare the policy optimisers of comparison/tiny in the tiny world; writes $OUT/COMPARISON.md and its figures.
#
#   bash comparison/compare.sh                    all optimisers, at seeds 0 1 2
#   bash comparison/compare.sh short              a short set, at seed 0
#   bash comparison/compare.sh claims             what CLAIMS.md needs
#   bash comparison/compare.sh explorations       the other choices of the loop; several sets may be named, too
#   SEEDS="0 1" bash comparison/compare.sh dpo kto best_of_n
#
# For each seed a base is made once: world, fine-tuned policy, the reward models. Give the same command
# again to go on; what is finished is not run again, and the tables hold all that is below $OUT. JOBS optimisers run at a
# time (2), each with its log, $OUT/seedS/NAME.log. Without a GPU their Python has its libraries imported already
# (tests/warm.py), since else most of the time would go into that.
# shellcheck disable=SC2329 # `start` calls the functions
set -euo pipefail
cd "$(dirname "$0")/.."
{ # read at once, so that an edit does not reach a run under way
: "${OUT:=runs/compare}" "${JOBS:=2}"
: "${JUDGEMENTS:=6000}" # pairs that the policy of self_rewarding learns to judge by
# shellcheck source=setup.sh
source ./setup.sh
optimisers=(dpo offline_dpo ipo hinge slic infonca rpo rso xpo selm sppo kto raft dpa self_play self_rewarding online_dpo ipo_mixture
  ipo_md rloo nash_md best_of_n concise interpolation combined pessimistic)
claims=(dpo offline_dpo concise long far far_one_round best_random random_random uncertain restart reference_previous
  best_of_n alignment_tax)
explorations=(dpo n_2 n_4 n_16 temperature_1 enhancer_initial enhancer_previous history_all offline_mixed)
short=(dpo offline_dpo ipo kto raft sppo best_of_n)
known=" ${optimisers[*]} ${claims[*]} ${explorations[*]} "
names=()
for name in "${@:-all}"; do
  case $name in
    all) names+=("${optimisers[@]}") ;;
    short) names+=("${short[@]}") SEEDS=${SEEDS:-0} ;;
    claims) names+=("${claims[@]}") ;;
    explorations) names+=("${explorations[@]}") ;;
    *)
      [[ $known == *" $name "* ]] || {
        echo "compare.sh: $name: all, short, claims, explorations, or some of$known" >&2
        exit 1
      }
      names+=("$name")
      ;;
  esac
done
[[ " ${names[*]} " != *" interpolation "* ]] || names+=(dpo concise)
[[ " ${names[*]} " != *" alignment_tax "* ]] || names+=(dpo)
mapfile -t names < <(printf '%s\n' "${names[@]}" | awk '!seen[$0]++')
: "${SEEDS:=0 1 2}"

loop() { # loop DIRECTORY RECIPE VARIABLE=VALUE...: one run of the driver
  local directory=$1 recipe=$2
  shift 2
  env "$@" OUT="$directory" SEED="$seed" RECIPE="$recipe comparison/tiny.sh recipes/tiny.sh" bash run_loop.sh
}

own() { # own FILE COMMAND...: make FILE, which the command takes as its last argument, unless it is there
  local file=$1
  shift
  [[ -e $file ]] || "$@" "$file"
}

respond() { # respond DIRECTORY POLICY N [PROMPTS]: its responses to the evaluation prompts, with both rewards
  mkdir -p "$1"
  own "$1/answers.jsonl" python generation/2_responses.py --model_name_or_path "$2" --n "$3" --temperatures 1.0 \
    --prompts_file "${4:-$base/world/evaluation.jsonl}" --max_new_tokens 128 --dtype float32 --seed "$seed" --output_file
  own "$1/rewards.jsonl" python annotation/1a_reward_model.py --model_name_or_path "$base/reward_model" --n "$3" \
    --responses_file "$1/answers.jsonl" --dtype float32 --output_file
  own "$1/true_rewards.jsonl" python recipes/tiny/3_true_reward.py --rewards_file "$1/rewards.jsonl" --output_file
}

interpolation() { # of a policy for the reward and one for short answers
  local from=$OUT/seed$seed
  local to=$from/interpolation
  own "$to/policy" python dpo/2_interpolate.py --models "$from"/{dpo,concise}/iter3/policy --output_dir
  respond "$to/eval/half" "$to/policy" 1
  own "$to/eval/half/kl.jsonl" python eval/2_kl.py --model_name_or_path "$to/policy" --dtype float32 \
    --ref_model_name_or_path "$base/sft" --responses_file "$to/eval/half/true_rewards.jsonl" --output_file
}

alignment_tax() { # the tiny benchmarks of lm-eval, before and after
  local run=$OUT/seed$seed/dpo to policy
  for to in sft iter3; do
    policy=$base/sft
    [[ $to == sft ]] || policy=$run/iter3/policy
    [[ -e $run/academic/$to/academic.json ]] || python eval/2d_academic.py --model_name_or_path "$policy" \
      --dtype float32 --include_path "$base/world/benchmarks/lm_eval" --tasks tiny_answers tiny_choices \
      --output_dir "$run/academic/$to"
  done
}

self_rewarding() { # from a policy that was taught to judge
  local to=$OUT/seed$seed/judge
  mkdir -p "$to"
  own "$to/judgements.jsonl" python sft/1b_judgements.py --preferences_file "$base/preferences.jsonl" --size "$JUDGEMENTS" \
    --seed "$seed" --output_file
  own "$to/start" python sft/2_finetune.py --model_name_or_path "$base/sft" --seed "$seed" --bf16 False \
    --dataset_name "$to/judgements.jsonl" "$base/world/instructions.jsonl" --learning_rate 5e-4 --max_length 256 \
    --per_device_train_batch_size 8 --packing False --train_sampling_strategy group_by_length \
    --gradient_checkpointing False --dataloader_pin_memory False --disable_tqdm True --save_strategy no --output_dir
  optimiser self_rewarding SFT_MODEL="$to/start"
}

dpa() { # its evaluation is in the direction of helpfulness; then the last policy is asked in others
  local to=$OUT/seed$seed/directions angle
  local DIRECTION_PROMPT # the recipe's
  DIRECTION_PROMPT=$(sed -n "s/^DIRECTION_PROMPT='\(.*\)'$/\1/p" comparison/tiny/dpa.sh)
  for angle in 0 -45 45; do
    own "$to/evaluation_$angle.jsonl" python generation/1b_directions.py --angles "$angle" \
      --system_prompt "$DIRECTION_PROMPT" --prompts_file "$base/world/evaluation.jsonl" --output_file
  done
  optimiser dpa EVAL_PROMPTS="$to/evaluation_0.jsonl"
  for angle in -45 45; do
    respond "$to/answers_$angle" "$OUT/seed$seed/dpa/iter3/policy" 1 "$to/evaluation_$angle.jsonl"
  done
}

best_of_n() {
  local of=$OUT/seed$seed/best_of_n/eval n
  respond "$of/samples" "$base/sft" 32
  for n in 2 4 8 16; do
    mkdir -p "$of/best_of_$n"
    own "$of/best_of_$n/kl.jsonl" python comparison/1_best_of_n.py --rewards_file "$of/samples/true_rewards.jsonl" \
      --n "$n" --output_file
  done
}

optimiser() { # optimiser NAME [VARIABLE=VALUE...]: three rounds from the base, which it shares the evaluation with
  local name=$1 directory=$OUT/seed$seed/$1
  shift
  if [[ ! -e $directory/eval ]]; then
    mkdir -p "$directory"
    cp -alf "$base/world" "$base/eval" "$directory" # links, with their records
  fi
  loop "$directory" "comparison/tiny/$name.sh" SFT_MODEL="$base/sft" REWARD_MODEL="$base/reward_model" \
    PREFERENCE_MODEL="$base/preference_model" ARMORM="$base/armorm" "$@"
}

# shellcheck source=comparison/jobs.sh
source comparison/jobs.sh
failed=""
share_cores "$(wc -w <<<"$SEEDS")"
for seed in $SEEDS; do
  mkdir -p "$OUT/seed$seed"
  start base loop "$OUT/seed$seed/base" comparison/tiny/dpo.sh ITERATIONS=0 \
    ANNOTATOR="reward_model preference_model armorm"
done
finished || exit 1
share_cores "$JOBS"
for seed in $SEEDS; do
  base=$OUT/seed$seed/base
  for name in "${names[@]}"; do
    case $name in
      best_of_n | self_rewarding | dpa) start "$name" "$name" ;;
      interpolation | alignment_tax) ;; # of what the others have made
      *) start "$name" optimiser "$name" ;;
    esac
  done
done
finished || failed=1
for seed in $SEEDS; do
  base=$OUT/seed$seed/base
  for name in interpolation alignment_tax; do
    [[ " ${names[*]} " != *" $name "* ]] || start "$name" "$name"
  done
done
finished || failed=1
python comparison/2_table.py --directory "$OUT"
python comparison/3_claims.py --directory "$OUT" >/dev/null
[[ -z $failed ]] || exit 1
exit
}
