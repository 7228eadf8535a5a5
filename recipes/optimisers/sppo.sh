# SPPO (arXiv 2405.00675): each log-ratio to the previous policy is drawn to (P - 1/2) / beta. The source's beta: .001,
# for answers thirty times as long, with log-ratios to match; .1 here.
: "${LOSS:=sppo}"
: "${REFERENCE:=previous}"
: "${BETA:=0.1}"
