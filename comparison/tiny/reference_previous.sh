# The previous policy as reference, as the published code has it since commit 2c673b8; the paper's is pi_0.
REFERENCE=previous
