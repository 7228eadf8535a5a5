# Directional preference alignment (arXiv 2402.18571): rejection-sampling fine-tuning on a reward vector times a
# direction, which the system prompt states. ArmoRM's objectives are the vector. The steps are those of fine-tuning. The
# prompt is the bare numbers: of the published sentence, 75 tokens here, a model of this size does not learn to read them.
OPTIMISER=dpa
HELPFULNESS="correct manner"
VERBOSITY=verbosity
DIRECTION_PROMPT='{helpfulness}, {verbosity}.'
DPO_LEARNING_RATE=1e-3
DPO_BATCH_SIZE=4
PER_DEVICE_BATCH_SIZE=4
DPO_OPTIONS="--packing False"
