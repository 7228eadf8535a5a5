# Self-rewarding (arXiv 2401.10020): the policy of the round compares its own responses, four a prompt. It has to have
# learned to judge: SFT_MODEL fine-tuned on the rows of sft/1b_judgements.py, too, as comparison/compare.sh does.
default ANNOTATOR policy
default N 4
