# Iterative M-DPO with a fixed reference, the fine-tuned policy.
OPTIMISER=mdpo
REFERENCE=initial
