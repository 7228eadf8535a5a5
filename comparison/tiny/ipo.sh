# Identity preference optimisation (arXiv 2310.12036): (D - 1/(2 beta))^2, D averaged over tokens by TRL.
DPO_LOSS=ipo
