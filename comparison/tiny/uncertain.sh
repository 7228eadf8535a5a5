# The enhancer's rule in the linear case (paper 3.2): the best response against the one that the pairs so far say least
# about, in the reward model's features.
OPTIMISER=uncertain
