# Directional preference alignment (arXiv 2402.18571): rejection-sampling fine-tuning on a reward vector times a
# direction, which the system prompt states. ArmoRM's objectives are the vector.
: "${LOSS:=dpa}"
: "${ANNOTATOR:=armorm}"
: "${HELPFULNESS:=correct manner}"
: "${VERBOSITY:=verbosity}"
: "${DPO_OPTIONS:=--packing False}"
