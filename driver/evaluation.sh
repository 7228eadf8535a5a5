# shellcheck shell=bash disable=SC2046,SC2048,SC2086,SC2128,SC2178,SC2206,SC2207
# One function a stage, as in stages.sh: what is measured on policies and annotators, and the report.

# Every policy

evaluate() { # evaluate NAME POLICY: its answers to the evaluation prompts, and what can be measured on them
  local answers=$OUT/eval/$1/answers.jsonl last
  shards=$engines order=$EVAL_PROMPTS step "$answers" python "${answerer[@]}" --model_name_or_path "$2" \
    --prompts_file "$EVAL_PROMPTS" --n 1 --temperatures 1.0 --max_new_tokens "$MAX_NEW_TOKENS" --dtype "$DTYPE" \
    --tensor_parallel_size "$TENSOR_PARALLEL" --seed "$SEED" "${template[@]}" "${model_len[@]}" --output_file "$answers"
  answered+=("$answers")
  last=$answers
  if [[ -n $REWARD_MODEL ]]; then
    last=$OUT/eval/$1/rewards.jsonl
    annotate reward_model "$answers" "$last" --n 1
  elif [[ $VALIDATION == verifier ]]; then
    last=$OUT/eval/$1/rewards.jsonl
    annotate verifier "$answers" "$last" --n 1
  fi
  if knows_truth; then
    step "$OUT/eval/$1/true_rewards.jsonl" python "$WORLD/3_true_reward.py" --rewards_file "$last" \
      --output_file "$OUT/eval/$1/true_rewards.jsonl"
    last=$OUT/eval/$1/true_rewards.jsonl
  fi
  step "$OUT/eval/$1/kl.jsonl" python eval/2_kl.py --model_name_or_path "$2" --ref_model_name_or_path "$SFT_MODEL" \
    --responses_file "$last" --dtype "$DTYPE" "${template[@]}" --output_file "$OUT/eval/$1/kl.jsonl"
  kl_files+=("$OUT/eval/$1/kl.jsonl")
}

# After the last round

measure_annotators() { # on a benchmark of preferences, on held-out pairs, and their taste for length (2.2)
  [[ $MEASURE != none ]] || return 0
  local to=$OUT/measures names=() name bench=("$REWARD_BENCH") benched=() sampled=() method=() sampled_method=()
  [[ -z $held_out ]] || bench+=("$held_out")
  step "$to/bench.jsonl" python reward_modeling/3_rewardbench.py --datasets "${bench[@]}" --output_file "$to/bench.jsonl"
  for name in $MEASURE; do
    names+=("$(basename "$name" .py)")
    benched+=("$to/bench_${names[-1]}.jsonl") sampled+=("$to/responses_${names[-1]}.jsonl")
    method=() sampled_method=()
    [[ $name != preference_model && $name != llm_judge ]] || method=(--method all_pairs)
    [[ $name == llm_judge ]] || sampled_method=("${method[@]}")
    annotate "$name" "$to/bench.jsonl" "${benched[-1]}" --n 0 "${method[@]}"
    ! has_responses ||
      annotate "$name" "$OUT/iter1/responses.jsonl" "${sampled[-1]}" --shard 0 --num_shards 8 "${sampled_method[@]}"
  done
  summarise "$to/rewardbench.json" python reward_modeling/3_rewardbench.py --bench_file "$to/bench.jsonl" \
    --rewards_files "${benched[@]}" --names "${names[@]}" --output_dir "$to"
  annotator_measures+=("$to/rewardbench.json")
  if has_responses; then
    summarise "$to/length_bias.json" python reward_modeling/4_length_bias.py --rewards_files "${sampled[@]}" \
      --names "${names[@]}" --output_dir "$to"
    annotator_measures+=("$to/length_bias.json")
  fi
  if [[ -n $held_out ]]; then
    summarise "$to/calibration.json" python reward_modeling/5_calibration.py --rewards_files "${benched[@]}" \
      --names "${names[@]}" --output_dir "$to"
    annotator_measures+=("$to/calibration.json")
  fi
}

run_benchmarks() { # run_benchmarks NAME POLICY: its answers and scores for EVALS (4)
  local to=$OUT/eval/$1 from=$EVAL_QUESTIONS name asked=() questions=() answers=() by
  for name in $EVALS; do
    case $name in
      alpaca_eval) asked+=("$name") questions+=("$from/alpaca_eval.json") answers+=("$to/$name/answers.json") ;;
      mt_bench | arena_hard)
        asked+=("$name") questions+=("$from/${name}_questions.jsonl") answers+=("$to/$name/answers.jsonl")
        ;;
    esac
  done
  ((${#asked[@]} == 0)) || step "${answers[*]}" python eval/1_answers.py --benchmarks "${asked[@]}" \
    --model_name_or_path "$2" --model_name "$1" ${from:+--questions_files "${questions[@]}"} --seed "$SEED" \
    --dtype "$DTYPE" --tensor_parallel_size "$TENSOR_PARALLEL" "${template[@]}" "${model_len[@]}" \
    --output_files "${answers[@]}"
  for name in $EVALS; do
    case $name in
      none) continue ;;
      alpaca_eval)
        by=(eval/2a_alpaca_eval.py --model_outputs "$to/$name/answers.json" $ALPACA_EVAL_OPTIONS
          ${from:+--reference_outputs "$from/alpaca_eval.json"})
        ;;
      mt_bench)
        by=(eval/2b_mt_bench.py --answers_file "$to/$name/answers.jsonl"
          ${from:+--questions_file "$from/mt_bench_questions.jsonl" --references_file "$from/mt_bench_references.jsonl"}
          ${from:+--prompts_file "$from/mt_bench_prompts.jsonl"})
        ;;
      arena_hard)
        by=(eval/2c_arena_hard.py --answers_file "$to/$name/answers.jsonl"
          ${from:+--questions_file "$from/arena_hard_questions.jsonl" --baseline_file "$from/arena_hard_baseline.jsonl"}
          ${from:+--prompts_file "$from/arena_hard_prompts.yaml"})
        ;;
      academic) by=(eval/2d_academic.py --model_name_or_path "$2" --dtype "$DTYPE" "${template[@]}"
        --tensor_parallel_size "$TENSOR_PARALLEL" $ACADEMIC_OPTIONS) ;;
    esac
    [[ $name == academic ]] || by+=(--judge_model "$JUDGE_MODEL" ${JUDGE_URL:+--judge_url "$JUDGE_URL"} $JUDGE_OPTIONS)
    benchmarked+=("$to/$name/$name.json")
    step "${benchmarked[-1]}" python "${by[@]}" --output_dir "$to/$name"
  done
}

validate() { # who chooses the best policy scores all policies' answers to a prompt side by side
  [[ $VALIDATION != true_reward && $VALIDATION != reward_model ]] || return 0
  local answers=$OUT/eval/validation_answers.jsonl method=()
  [[ -z $pairwise ]] || method=(--method all_pairs)
  summarise "$answers" python generation/2b_merge.py --responses_files "${answered[@]}" --split validation \
    --output_file "$answers"
  summaries[${#step_files[@]}]=yes
  annotate "$VALIDATION" "$answers" "$OUT/eval/validation.jsonl" --n "${#answered[@]}" "${method[@]}"
  validated=(--validation_file "$OUT/eval/validation.jsonl")
}

report() { # the tables, the page, and a card for each policy
  summarise "$OUT/results.json" python eval/3_report.py --answers "${kl_files[@]}" --training "${trained[@]}" \
    --settings "$OUT/settings" --log_dir "$OUT/log" --output_dir "$OUT" \
    ${annotator_measures[*]:+--measures "${annotator_measures[@]}"} ${validated[*]:+"${validated[@]}"} \
    ${benchmarked[*]:+--benchmarks "${benchmarked[@]}"}
  local cards=("${policies[@]/%//README.md}")
  ((${#policies[@]} == 0)) || summarise "${cards[*]}" python eval/4_model_cards.py --results_file "$OUT/results.json" \
    --policies "${policies[@]}"
}
