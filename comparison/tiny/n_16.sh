# n=16 responses a prompt; the paper's is 8.
N=16
