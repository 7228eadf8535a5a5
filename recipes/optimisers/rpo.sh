# DPO with the chosen response's negative log-likelihood (iterative RPO, arXiv 2404.19733, alpha 1 a token).
: "${LOSS:=sigmoid sft}"
: "${DPO_OPTIONS:=--loss_weights 1 1}"
