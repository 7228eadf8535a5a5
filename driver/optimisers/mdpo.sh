# M-DPO (arXiv 2409.02392): DPO on trajectories in which the policy uses a tool. The log-ratio is summed over the policy's
# own tokens in all turns; a right trajectory is paired with a wrong one of the same prompt. The source's reference is the
# previous policy; REFERENCE=initial is its baseline with a fixed one.
ignores DPO_LOSS
default TOOL python
default ANNOTATOR verifier
default PAIRING right_wrong
default REFERENCE previous
default DPO_LEARNING_RATE 2e-7
default DPO_BATCH_SIZE 32
optimise() { train_on_pairs dpo/1_dpo.py "$@" -- --loss_type sigmoid --assistant_only_loss True; }
check_mdpo() { [[ $TOOL != none ]] || die "OPTIMISER=mdpo: its responses have several turns, with a TOOL"; }
