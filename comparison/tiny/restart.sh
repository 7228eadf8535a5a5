# Each round starts from pi_0 again, on the pairs of all rounds so far; the paper's goes on from the previous policy.
START=initial
HISTORY=all
