# Far from pi_0: a small beta and a large learning rate, to see the proxy part from the truth.
DPO_BETA=0.03
DPO_LEARNING_RATE=3e-4
