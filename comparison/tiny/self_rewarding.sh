# Self-rewarding (arXiv 2401.10020): the policy of the round compares its own responses. It has to have learned to
# judge: SFT_MODEL fine-tuned on the rows of sft/1b_judgements.py, too, as comparison/compare.sh does. Four responses a
# prompt, as there.
OPTIMISER=self_rewarding
