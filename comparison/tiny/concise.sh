# The length penalty (paper, eq. 9). Its lambda is 0.001 a character, for answers of hundreds.
LENGTH_PENALTY=0.05
