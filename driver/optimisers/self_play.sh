# SPIN (arXiv 2401.01335): the instructions' answers against the policy's own, by DPO; no reward at all.
ignores PAIRING MIN_MARGIN PROMPTS_BY_ROUND ANNOTATOR ANNOTATOR_WEIGHTS PESSIMISM
default REFERENCE previous
default N 1
default TEMPERATURES 1.0
prepare_pool() {
  convert_instructions
  PROMPTS=$OUT/instructions.jsonl
  count_pool
}
annotate_responses() { :; }
make_pairs() {
  step "$2" python annotation/2c_self_play.py --instructions_file "$PROMPTS" \
    --responses_file "$dir/responses.jsonl" --output_file "$2"
  training_data+=("$2")
}
check_self_play() {
  [[ -n $SFT_DATA ]] || die "OPTIMISER=self_play: set SFT_DATA, whose answers are the better ones"
}
