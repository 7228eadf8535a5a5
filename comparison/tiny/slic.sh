# SLiC-HF (arXiv 2305.10425): a margin on log pi itself, without a reference, and the chosen response as regulariser.
DPO_LOSS=slic
