# SELM (arXiv 2405.19332): DPO that is pushed away from the policy's own greedy response. As in the published code the
# reference is the previous policy and the learning rate falls by round; beta and alpha are the source's.
ignores DPO_LOSS
default REFERENCE previous
default DPO_BETA 0.01
if [[ ! -v set_by[DPO_LEARNING_RATE] && ${ITERATIONS:-3} == 3 ]]; then
  default DPO_LEARNING_RATES "5e-7 3e-7 1e-7"
fi
sample_responses() {
  sample_from_policies "$1" "$2"
  sample "$1" "$dir/explored.jsonl" "$policy" 1 $((SEED + 1)) 0.0
}
make_pairs() { pair "$1" "$2" --explored_file "$dir/explored.jsonl"; }
optimise() { train_on_pairs dpo/1_dpo.py "$@" -- --loss_type selm --optimism 1e-4; }
