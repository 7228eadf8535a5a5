# The paper's baseline of offline DPO (B.3, Table 2): from its published policy, one epoch on Nectar, whose answers
# other models gave, and no round of its own. The paper does not say which of the seven answers make a pair: here the
# best and the worst. Machine: 8 GPUs of 80 GB. Not run here; about 1 hour by budget.py. Expected (Table 2): LC
# AlpacaEval 2 22.5, MT-Bench 8.17, Arena-Hard 22.4, by judges that have been withdrawn; for them set EVALS, JUDGE_URL
# and JUDGE_MODEL.
SFT_MODEL=RLHFlow/LLaMA3-SFT
REWARD_MODEL=sfairXC/FsfairX-LLaMA3-RM-v0.1 # scores the answers of the evaluation
PROMPTS=RLHFlow/prompt-collection-v0.1      # of the evaluation
OPTIMISER=offline
OFFLINE_PAIRS=berkeley-nest/Nectar
ITERATIONS=1
DPO_EPOCHS=1
DPO_LEARNING_RATE=5e-7
DPO_BATCH_SIZE=128
PER_DEVICE_BATCH_SIZE=2
DISTRIBUTED=zero3
EVALS=academic
