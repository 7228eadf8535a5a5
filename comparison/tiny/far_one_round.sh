# As far.sh, in one round on three times the prompts: all responses are those of pi_0.
DPO_BETA=0.03
DPO_LEARNING_RATE=3e-4
ITERATIONS=1
PROMPTS_PER_ITERATION=1800
