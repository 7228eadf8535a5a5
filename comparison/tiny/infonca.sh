# InfoNCA/NCA on pairs (arXiv 2402.05369): holds the chosen response's absolute log-ratio up, too.
DPO_LOSS=nca_pair
