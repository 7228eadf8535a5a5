# Pairing random_random: the baselines of best against worst (paper 3.3).
PAIRING=random_random
