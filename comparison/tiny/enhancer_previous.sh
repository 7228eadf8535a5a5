# Main agent and enhancer (paper 3.2): half of the responses are those of the round before.
ENHANCER=previous
