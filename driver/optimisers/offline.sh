# Offline DPO, the paper's baseline (B.3): one round on preference data of others, no response of the policy's own.
ignores PAIRING MIN_MARGIN ENHANCER N TEMPERATURES PROMPTS_PER_ITERATION PROMPTS_BY_ROUND HISTORY
default ITERATIONS 1
draws_prompts() { false; }
draw_prompts() { :; }
sample_responses() { :; }
annotate_responses() { :; }
make_pairs() { :; }
check_offline() {
  [[ -n $OFFLINE_PAIRS ]] || OFFLINE_PAIRS=$PREFERENCES
  ((ITERATIONS == 1)) && [[ -n $OFFLINE_PAIRS ]] ||
    die "OPTIMISER=offline: set ITERATIONS=1, and OFFLINE_PAIRS or PREFERENCES"
}
