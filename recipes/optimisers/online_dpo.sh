# Online DPO (OAIF, arXiv 2402.04792): one batch a round, so the responses are always those of the policy at hand.
: "${ITERATIONS:=6}"
: "${PROMPTS_PER_ITERATION:=128}"
: "${BATCH_SIZE:=128}"
: "${EPOCHS:=1}"
