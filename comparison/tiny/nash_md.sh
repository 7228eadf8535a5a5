# Nash-MD (arXiv 2312.00886): on-policy policy gradient on the win probability against the geometric mixture of policy and
# reference, by TRL's trainer. Its prompts and batches are those of rloo; its rewards lie within 1/2 of 0, and the KL's
# weight is smaller to match.
OPTIMISER=nash_md
DPO_BETA=0.05
PROMPTS_PER_ITERATION=1800
N=4
DPO_BATCH_SIZE=256
PER_DEVICE_BATCH_SIZE=256
ITERATIONS=1
