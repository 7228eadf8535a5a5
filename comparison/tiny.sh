# Between a file of comparison/tiny and recipes/tiny.sh: a comparison under three minutes for each optimiser.
PROMPTS_PER_ITERATION=600
MEASURE=none
EVALS=none
