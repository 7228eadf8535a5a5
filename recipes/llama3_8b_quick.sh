# The paper's loop alone (3.3): from its published policy and reward model, three rounds of iterative DPO. Machine: 8
# GPUs of 80 GB. Not run here; about 1 hour by budget.py, and the evaluation. Expected (Table 2): LC AlpacaEval 2
# 31.3, MT-Bench 8.46, Arena-Hard 29.1, by judges that have been withdrawn; for them set EVALS, JUDGE_URL and
# JUDGE_MODEL.
SFT_MODEL=RLHFlow/LLaMA3-SFT
REWARD_MODEL=sfairXC/FsfairX-LLaMA3-RM-v0.1
PROMPTS=RLHFlow/prompt-collection-v0.1
PER_DEVICE_BATCH_SIZE=2
DISTRIBUTED=zero3
EVALS=academic
