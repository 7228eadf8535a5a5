# KTO (arXiv 2402.01306): the best and the worst response of the same annotations, each by itself.
ignores DPO_LOSS
optimise() { train_on_pairs dpo/1b_kto.py "$@" --; }
check_kto() {
  [[ $(batch DPO_BATCH_SIZE) != "--per_device_train_batch_size 1 "* ]] ||
    die "OPTIMISER=kto: it takes its mismatched responses from a device's rows: set PER_DEVICE_BATCH_SIZE to 2 or more"
}
