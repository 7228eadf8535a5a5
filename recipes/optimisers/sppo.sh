# SPPO (arXiv 2405.00675): each log-ratio is drawn to (P - 1/2) / beta. The source's beta: .001, for answers thirty
# times as long, with log-ratios to match; .1 here.
: "${LOSS:=sppo}"
: "${BETA:=0.1}"
