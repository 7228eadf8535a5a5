# RLOO (arXiv 2402.14740): on-policy policy gradient against the same reward model, by TRL's trainer.
: "${LOSS:=rloo}"
: "${ITERATIONS:=1}"
: "${PROMPTS_PER_ITERATION:=1800}"
: "${N:=4}"
: "${EPOCHS:=1}"
: "${BATCH_SIZE:=256}"
: "${PER_DEVICE_BATCH_SIZE:=256}"
