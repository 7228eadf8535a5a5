# The settings of recipes/gemma2_9b_mdpo.sh for a small current model. Machine: 1 GPU of 80 GB. Not run here. No number is
# published.
BASE_MODEL=Qwen/Qwen2.5-1.5B-Instruct
SFT_DATA=RLHF4MATH/SFT_510K
SFT_LEARNING_RATE=5e-6
SFT_EPOCHS=4
SFT_BATCH_SIZE=64
SFT_MAX_LENGTH=4096

OPTIMISER=mdpo
RUN_GENERATED_CODE=yes
PROMPTS=math
EVAL_POOL=math-test # answered with the tool, and scored by the verifier
PROMPTS_PER_ITERATION=4500
TEMPERATURES=1.0
MAX_NEW_TOKENS=1024
DPO_EPOCHS=1
DPO_OPTIONS="--warmup_steps 0.1" # a share
PER_DEVICE_BATCH_SIZE=2
EVALS=academic
ACADEMIC_OPTIONS="--tasks gsm8k_cot minerva_math500"
