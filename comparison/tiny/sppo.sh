# SPPO (arXiv 2405.00675): each log-ratio to the previous policy is drawn to (P - 1/2) / beta. The source's beta: .001,
# for answers thirty times as long, with log-ratios to match; .1 here.
OPTIMISER=sppo
DPO_BETA=0.1
