# llama3_8b_quick with ArmoRM as annotator; the report's proxy stays the reward model's.
# Machine: 8 GPUs of 80 GB. Not run here; about 1 hour by budget.py, and the evaluation. No number is published.
ANNOTATOR=armorm
ARMORM=RLHFlow/ArmoRM-Llama3-8B-v0.1
ARMORM_TRUST_REMOTE_CODE=yes
ARMORM_REVISION=eb2676d20da2f2d41082289d23c59b9f7427f955
SFT_MODEL=RLHFlow/LLaMA3-SFT
REWARD_MODEL=sfairXC/FsfairX-LLaMA3-RM-v0.1
PROMPTS=RLHFlow/prompt-collection-v0.1
PER_DEVICE_BATCH_SIZE=2
DISTRIBUTED=zero3
EVALS=academic
