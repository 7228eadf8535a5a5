# IPO on pairs of the policy and of the mean of its weights with pi_0's, compared by the preference model; each gives two
# responses to a prompt. It is not IPO-MD (arXiv 2403.08635), whose mixture is of the two policies' logits: that is ipo_md.
OPTIMISER=ipo_mixture
N=4
