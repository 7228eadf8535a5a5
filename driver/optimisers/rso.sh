# RSO (arXiv 2309.06657): DPO's loss on pairs that are samples of the policy that the reward implies, by statistical
# rejection sampling among the initial policy's responses. The source's beta, 0.5, is REJECTION_TEMPERATURE, and its gamma
# is DPO_BETA. Of its two normalised losses sigmoid-norm, that of its ablations, is DPO_LOSS=sigmoid, and hinge-norm is
# DPO_LOSS=hinge: "norm" means that the likelihood is divided by the initial policy's. TRL's sigmoid_norm is another loss:
# it divides by the tokens. The source's top-k of 40 is left out, as are its batch and learning rate, which are for a T5.
ignores PAIRING MIN_MARGIN
default ITERATIONS 1
default N 64
default TEMPERATURES 0.7
default DPO_BETA 0.05
make_pairs() {
  step "$2" python annotation/2f_rejection_sampling.py --rewards_file "$1" --n "$N" --accepted "$ACCEPTED" \
    --rejection_temperature "$REJECTION_TEMPERATURE" --length_penalty "$LENGTH_PENALTY" --seed "$SEED" --output_file "$2"
  training_data+=("$2")
}
check_rso() {
  ((ITERATIONS < 2)) || [[ $REFERENCE == previous ]] ||
    die "OPTIMISER=rso: its responses are of the policy that is its reference; set ITERATIONS=1 or REFERENCE=previous"
  [[ $HISTORY == round ]] || die "OPTIMISER=rso: pairs of earlier rounds are of other policies than its reference; not with HISTORY=all"
  [[ $ENHANCER == none ]] || die "OPTIMISER=rso: its responses are of one policy; not with ENHANCER=$ENHANCER"
  ((ACCEPTED % 2 == 0 && ACCEPTED < N)) || die "ACCEPTED=$ACCEPTED: an even number below N=$N is needed"
}
