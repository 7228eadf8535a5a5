# A small current model on one GPU of 24 GB: the loop with LoRA, from the instruction-tuned model, and a reward model of 8B
# that is only asked. Machine: 1 GPU of 24 GB. Not run here; about 6 hours by budget.py, and the evaluation. No number is
# published.
SFT_MODEL=Qwen/Qwen2.5-1.5B-Instruct
REWARD_MODEL=sfairXC/FsfairX-LLaMA3-RM-v0.1
PROMPTS=RLHFlow/prompt-collection-v0.1
PROMPTS_PER_ITERATION=5000
MAX_NEW_TOKENS=1024
DPO_OPTIONS="--use_peft True --lora_r 32 --lora_alpha 64"
DPO_LEARNING_RATE=5e-6 # LoRA wants more than the paper's 5e-7
PER_DEVICE_BATCH_SIZE=2
EVALS=academic
