# XPO (arXiv 2405.21046): DPO that is pushed away from the initial policy's own responses. alpha: 1e-5 or 5e-6 there.
ignores DPO_LOSS
sample_responses() {
  sample_from_policies "$1" "$2"
  sample "$1" "$dir/explored.jsonl" "$SFT_MODEL" 1 $((SEED + 1)) 1.0
}
make_pairs() { pair "$1" "$2" --explored_file "$dir/explored.jsonl"; }
optimise() { train_on_pairs dpo/1_dpo.py "$@" -- --loss_type xpo --optimism 1e-5; }
