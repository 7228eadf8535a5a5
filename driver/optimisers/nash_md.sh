# Nash-MD (arXiv 2312.00886): on-policy policy gradient, by TRL's trainer. The reward of a response is its win probability
# against a response of the geometric mixture of policy and reference, by the preference model. It samples while it
# trains: a round has prompts alone.
ignores DPO_LOSS DPO_MAX_LENGTH TEMPERATURES ANNOTATOR_WEIGHTS PESSIMISM PAIRING MIN_MARGIN LENGTH_PENALTY ENHANCER
default ANNOTATOR preference_model
default ITERATIONS 1
default DPO_EPOCHS 1
has_responses() { false; }
sample_responses() { :; }
annotate_responses() { :; }
make_pairs() { training_data+=("$dir/prompts.jsonl"); }
optimise() {
  train_policy "$1" dpo/1d_nash_md.py --model_name_or_path "$2" \
    --preference_model_name_or_path "$PREFERENCE_MODEL" --mixture_coefficient "$MIXTURE_COEFFICIENT" \
    --beta "$DPO_BETA" --num_generations "$N" --max_completion_length "$MAX_NEW_TOKENS" --dataset_name "${@:4}"
}
check_nash_md() {
  [[ $MIXTURE_COEFFICIENT =~ ^(0|1|0?\.[0-9]+|[01]\.0*)$ ]] || die "MIXTURE_COEFFICIENT=$MIXTURE_COEFFICIENT: not in 0 to 1"
  [[ $ANNOTATOR == preference_model ]] || die "OPTIMISER=nash_md: set ANNOTATOR=preference_model, which it asks itself"
  ((N > 1 && DPO_BATCH_SIZE % N == 0)) ||
    die "OPTIMISER=nash_md: DPO_BATCH_SIZE=$DPO_BATCH_SIZE does not divide by N=$N, or N is 1"
  [[ $ITERATIONS == 1 || "$REFERENCE $START" == "previous previous" ]] ||
    die "OPTIMISER=nash_md: its reference is the policy it starts from; set ITERATIONS=1, or REFERENCE=previous with START=previous"
  ((processes == 1)) || [[ $DISTRIBUTED =~ ^(ddp|zero2)$ ]] ||
    die "OPTIMISER=nash_md: its processes hold whole models; set DISTRIBUTED to ddp or zero2"
}
