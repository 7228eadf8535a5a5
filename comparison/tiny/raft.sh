# RAFT (arXiv 2304.06767): fine-tuning on the best of n, iterated. No reference, no worst response.
OPTIMISER=raft
DPO_OPTIONS="--packing False"
