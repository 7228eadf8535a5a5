# IPO-MD (arXiv 2403.08635): IPO on responses of the geometric mixture of the round's policy and pi_0, on their logits
# token by token, compared by the preference model. Four responses a prompt, as ipo_mixture.
OPTIMISER=ipo_md
N=4
