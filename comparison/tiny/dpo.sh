# Iterative DPO, the paper's recipe (3.3): all is as the recipe beside it says.
DPO_LOSS=sigmoid
