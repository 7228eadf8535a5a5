# Online DPO (OAIF, arXiv 2402.04792): one batch a round, so the responses are always those of the policy at hand. A
# round is one step, so that no schedule is needed.
OPTIMISER=online_dpo
ITERATIONS=6
PROMPTS_PER_ITERATION=128
DPO_BATCH_SIZE=128
