# Online DPO (OAIF, arXiv 2402.04792): one batch a round, so the responses are always those of the policy at hand. A
# round is one step, so that no schedule is needed.
default DPO_EPOCHS 1
default PROMPTS_PER_ITERATION "${DPO_BATCH_SIZE:-${default_of[DPO_BATCH_SIZE]}}"
# shellcheck disable=SC2086 # it may name several
optimise() { train_on_pairs dpo/1_dpo.py "$@" -- --loss_type $DPO_LOSS --lr_scheduler_type constant --warmup_steps 0; }
