# SPIN (arXiv 2401.01335): the instructions' answers against the policy's own, by DPO; no reward at all.
OPTIMISER=self_play
