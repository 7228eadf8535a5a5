# Iterative single-turn DPO on pairs of a right and a wrong trajectory: all that follows the question taken for one response, the tool's output too.
OPTIMISER=dpo
