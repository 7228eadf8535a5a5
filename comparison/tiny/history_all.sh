# The pairs of all rounds so far, instead of this round's alone.
HISTORY=all
