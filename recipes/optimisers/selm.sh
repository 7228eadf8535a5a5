# SELM (arXiv 2405.19332): DPO that is pushed away from the policy's own greedy response. The source's alpha: 1e-4.
: "${LOSS:=selm}"
: "${DPO_OPTIONS:=--optimism 1e-2}"
