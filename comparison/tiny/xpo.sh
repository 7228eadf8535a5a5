# XPO (arXiv 2405.21046): DPO that is pushed away from the reference's own responses. The source's alpha: 1e-5 or 5e-6,
# for answers of hundreds of tokens; with ten tokens a term of that size is not felt.
OPTIMISER=xpo
DPO_OPTIONS="--optimism 1e-3"
