# IPO-MD (arXiv 2403.08635), an equivalent of Nash-MD by pairs: opponents from a mixture of policy and pi_0, compared by
# the preference model. The mixture is of weights, not of the sources' logits. Each gives two responses to a prompt.
: "${LOSS:=ipo}"
: "${ENHANCER:=mixture}"
: "${ANNOTATOR:=preference_model}"
: "${N:=4}"
