# Iterative M-DPO (arXiv 2409.02392), each round's reference the policy that it starts from.
OPTIMISER=mdpo
