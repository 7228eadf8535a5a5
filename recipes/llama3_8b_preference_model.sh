# llama3_8b_quick with the paper's pairwise preference model as annotator, in a tournament (2.1); the report's proxy stays
# the reward model's. Machine: 8 GPUs of 80 GB. Not run here; about 2 hours by budget.py (13 comparisons a prompt), and the
# evaluation. No number is published.
ANNOTATOR=preference_model
PREFERENCE_MODEL=RLHFlow/pair-preference-model-LLaMA3-8B
SFT_MODEL=RLHFlow/LLaMA3-SFT
REWARD_MODEL=sfairXC/FsfairX-LLaMA3-RM-v0.1
PROMPTS=RLHFlow/prompt-collection-v0.1
PER_DEVICE_BATCH_SIZE=2
DISTRIBUTED=zero3
EVALS=academic
