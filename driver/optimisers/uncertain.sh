# The enhancer's rule in the linear case (paper 3.2): the best response against the one that the pairs so far say least
# about, in the reward model's features.
ignores PAIRING MIN_MARGIN
earlier_pairs=()
make_pairs() {
  local earlier=()
  ((t == 1)) || earlier=(--earlier_files "${earlier_pairs[@]}")
  step "$2" python annotation/2d_uncertain_pairs.py --model_name_or_path "$REWARD_MODEL" --n "$N" --rewards_file "$1" \
    "${earlier[@]}" --length_penalty "$LENGTH_PENALTY" --dtype "$DTYPE" \
    --output_file "$2"
  earlier_pairs+=("$2")
  training_data+=("$2")
}
check_uncertain() {
  [[ -n $REWARD_MODEL$PREFERENCES ]] || die "$RECIPE: set REWARD_MODEL or PREFERENCES, for OPTIMISER=uncertain"
}
