# Offline DPO, the paper's baseline (B.3): one round on preference data of others, no response of the policy's own.
# As many pairs as three rounds of 600 prompts give: 950 prompts of the tiny world have about 1,800.
OPTIMISER=offline
OFFLINE_SIZE=950
ITERATIONS=1
