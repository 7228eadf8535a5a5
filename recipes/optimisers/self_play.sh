# SPIN (arXiv 2401.01335): the instructions' answers against the policy's own, by DPO; no reward at all.
: "${PAIRING:=self_play}"
: "${REFERENCE:=previous}"
: "${N:=1}"
: "${TEMPERATURES:=1.0}"
