# n=2 responses a prompt; the paper's is 8.
N=2
