# Directional preference alignment (arXiv 2402.18571): RAFT on a reward vector times a direction, which the system prompt
# states. ArmoRM's objectives are the vector.
source driver/optimisers/raft.sh # for its training
ignores LENGTH_PENALTY ENHANCER
default ANNOTATOR armorm
sample_responses() { # to prompts that state a direction
  step "$dir/directed.jsonl" python generation/1b_directions.py --prompts_file "$1" --seed "$SEED" \
    ${DIRECTION_PROMPT:+--system_prompt "$DIRECTION_PROMPT"} --output_file "$dir/directed.jsonl"
  sample "$dir/directed.jsonl" "$2" "$policy" "$N" "$SEED" "$TEMPERATURES"
}
make_pairs() { # the best response in the direction of its prompt
  # shellcheck disable=SC2086
  step "$dir/best.jsonl" python annotation/2e_directional.py --rewards_file "$1" --helpfulness $HELPFULNESS \
    --verbosity $VERBOSITY --output_file "$dir/best.jsonl"
  training_data+=("$dir/best.jsonl")
}
check_dpa() {
  local name
  [[ $ANNOTATOR == armorm && -n $HELPFULNESS && -n $VERBOSITY ]] ||
    die "OPTIMISER=dpa: set ANNOTATOR=armorm, and by its objectives HELPFULNESS and VERBOSITY"
  for name in helpfulness verbosity; do
    [[ -z $DIRECTION_PROMPT || $DIRECTION_PROMPT == *"{$name}"* ]] ||
      die "DIRECTION_PROMPT=$DIRECTION_PROMPT: {$name} is missing"
  done
}
