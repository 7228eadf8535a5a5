# The paper's concise model (Table 4): llama3_8b_quick with a length penalty of 0.001 a character (equation 9).
# Machine: 8 GPUs of 80 GB. Not run here; about 1 hour by budget.py, and the evaluation. Expected: LC AlpacaEval 2
# 38.1, Arena-Hard 22.1, and there a mean length of 382 in place of 656.
LENGTH_PENALTY=0.001
SFT_MODEL=RLHFlow/LLaMA3-SFT
REWARD_MODEL=sfairXC/FsfairX-LLaMA3-RM-v0.1
PROMPTS=RLHFlow/prompt-collection-v0.1
PER_DEVICE_BATCH_SIZE=2
DISTRIBUTED=zero3
EVALS=academic
