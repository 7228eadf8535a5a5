# RAFT: fine-tuning on a right response to each question, without the tool's output. Its loss wants larger steps.
OPTIMISER=raft
DPO_LEARNING_RATE=3e-4
DPO_OPTIONS="--packing False"
