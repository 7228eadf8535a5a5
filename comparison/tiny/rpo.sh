# DPO with the chosen response's negative log-likelihood over its own length (iterative RPO, arXiv 2404.19733). The
# source's alpha: 1.
DPO_LOSS=rpo
