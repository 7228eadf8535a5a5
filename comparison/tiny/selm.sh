# SELM (arXiv 2405.19332): DPO that is pushed away from the policy's own greedy response. As in the published code the
# reference is the previous policy, and the learning rate falls: 5e-7, 3e-7, 1e-7 there, as many times the tiny world's
# here. The source's alpha: 1e-4.
OPTIMISER=selm
DPO_LEARNING_RATES="1e-4 6e-5 2e-5"
DPO_OPTIONS="--optimism 1e-2"
