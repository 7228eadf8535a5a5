# IPO on pairs of the policy and of the mean of its weights with pi_0's, compared by the preference model. It is not
# IPO-MD (arXiv 2403.08635), whose mixture is of the two policies' logits: that is ipo_md.
default DPO_LOSS ipo
default ENHANCER mixture
default ANNOTATOR preference_model
