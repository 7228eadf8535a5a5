# Main agent and enhancer (paper 3.2): half of the responses are those of pi_0.
ENHANCER=initial
