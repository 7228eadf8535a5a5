# As combined.sh, less the annotators' disagreement: the reward is one standard deviation below their mean, the plainest
# lower confidence bound (annotation/1e_combined.py).
ANNOTATOR="reward_model preference_model armorm"
PM_METHOD=all_pairs
N=4
PESSIMISM=1
