# M-KTO (arXiv 2409.02392): KTO on the pairs of M-DPO, the right and the wrong trajectory each by itself, over the policy's
# own tokens.
ignores DPO_LOSS
default TOOL python
default ANNOTATOR verifier
default PAIRING right_wrong
default REFERENCE previous
default DPO_LEARNING_RATE 2e-7
default DPO_BATCH_SIZE 32
optimise() { train_on_pairs dpo/1b_kto.py "$@" -- --assistant_only_loss True; }
check_mkto() {
  [[ $TOOL != none ]] || die "OPTIMISER=mkto: its responses have several turns, with a TOOL"
  [[ $(batch DPO_BATCH_SIZE) != "--per_device_train_batch_size 1 "* ]] ||
    die "OPTIMISER=mkto: it takes its mismatched responses from a device's rows: set PER_DEVICE_BATCH_SIZE to 2 or more"
}
