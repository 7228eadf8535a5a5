# Iterative single-turn KTO on a right and a wrong trajectory, each by itself, the tool's output too.
OPTIMISER=kto
