# Far from pi_0: a small beta and a large learning rate, to see the proxy part from the truth.
: "${BETA:=0.03}"
: "${LEARNING_RATE:=3e-4}"
