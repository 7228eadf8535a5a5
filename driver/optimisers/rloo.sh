# RLOO (arXiv 2402.14740): on-policy policy gradient against the same reward model, by TRL's trainer. It samples while it
# trains: a round has prompts alone.
ignores DPO_LOSS DPO_MAX_LENGTH TEMPERATURES ANNOTATOR ANNOTATOR_WEIGHTS PESSIMISM PAIRING MIN_MARGIN LENGTH_PENALTY ENHANCER
default ITERATIONS 1
default DPO_EPOCHS 1
has_responses() { false; }
sample_responses() { :; }
annotate_responses() { :; }
make_pairs() { training_data+=("$dir/prompts.jsonl"); }
optimise() {
  train_policy "$1" dpo/1c_rloo.py --model_name_or_path "$2" \
    --reward_model_name_or_path "$REWARD_MODEL" --beta "$DPO_BETA" --num_generations "$N" \
    --max_completion_length "$MAX_NEW_TOKENS" --dataset_name "${@:4}"
}
check_rloo() {
  [[ -n $REWARD_MODEL$PREFERENCES ]] || die "$RECIPE: set REWARD_MODEL or PREFERENCES, for OPTIMISER=rloo"
  ((N > 1 && DPO_BATCH_SIZE % N == 0)) ||
    die "OPTIMISER=rloo: DPO_BATCH_SIZE=$DPO_BATCH_SIZE does not divide by N=$N, or N is 1"
  [[ $ITERATIONS == 1 || "$REFERENCE $START" == "previous previous" ]] ||
    die "OPTIMISER=rloo: its reference is the policy it starts from; set ITERATIONS=1, or REFERENCE=previous with START=previous"
}
