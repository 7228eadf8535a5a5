# DPO by three annotators, whose standardised scores are summed: what pessimistic.sh is compared with. The preference
# model compares all pairs, since a tournament's rewards, 1, 0.5 and 0, would differ from the others' scores without
# disagreement. Of four responses, as the 28 pairs of eight would take longer than the rest of the run: n_4 is DPO by the
# reward model alone at this n.
ANNOTATOR="reward_model preference_model armorm"
PM_METHOD=all_pairs
N=4
