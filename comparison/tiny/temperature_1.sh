# All responses at temperature 1; the paper's are half at 1.0, half at 0.7.
TEMPERATURES=1.0
