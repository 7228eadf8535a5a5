# RLOO (arXiv 2402.14740): on-policy policy gradient against the same reward model, by TRL's trainer.
OPTIMISER=rloo
PROMPTS_PER_ITERATION=1800
N=4
DPO_BATCH_SIZE=256
PER_DEVICE_BATCH_SIZE=256
ITERATIONS=1
