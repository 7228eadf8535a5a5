# RSO (arXiv 2309.06657): DPO's loss on pairs that rejection sampling accepts among pi_0's responses. One round, as there,
# on the prompts of the others' three. 16 responses a prompt, not 64: twice as many as the others sample, not eight times.
# An eighth is accepted, as there (8 of 64): a pair a prompt, about as many in all as DPO has. The rejection temperature is
# the source's, 0.5: both reward models' scores are log-odds. The loss's beta is the recipe's, as that of the other losses.
OPTIMISER=rso
ITERATIONS=1
PROMPTS_PER_ITERATION=1800
N=16
ACCEPTED=2
