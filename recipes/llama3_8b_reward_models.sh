# The paper's reward models (2.1): Bradley-Terry and pairwise, from LLaMA-3-8B-Instruct on mix2, and RewardBench.
# Machine: 8 GPUs of 80 GB. Not run here; Bradley-Terry about 3 hours by budget.py. Expected (Table 1; Chat, Chat Hard,
# Safety, Reasoning): Bradley-Terry 99.4, 65.1, 87.8, 86.4; pairwise 98.3, 65.8, 89.7, 94.7. The models and their
# measures, without a round of the loop.
SFT_MODEL=meta-llama/Meta-Llama-3-8B-Instruct
PREFERENCES=mix2
RM_LEARNING_RATE=2e-6
RM_EPOCHS=1
RM_BATCH_SIZE=512
PM_LEARNING_RATE=5e-6
PM_EPOCHS=1
PM_BATCH_SIZE=128
PER_DEVICE_BATCH_SIZE=4
RM_MAX_LENGTH=4096
MEASURE="reward_model preference_model"
PROMPTS=RLHFlow/prompt-collection-v0.1
ITERATIONS=0
DISTRIBUTED=zero3
