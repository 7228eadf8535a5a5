# Iterative M-DPO on mathematics with a Python tool (arXiv 2409.02392), Gemma-2-it-9B. Machine: 8 GPUs of 80 GB.
# Not run here. Expected (its Table 1): GSM8K 84.1 and MATH 51.0 after fine-tuning, 86.3 and 54.5 after three rounds. The
# source's prompts are an augmented set (RLHF4MATH/prompt_iter1 to 3); here they are the training questions.
BASE_MODEL=google/gemma-2-9b-it
SFT_DATA=RLHF4MATH/SFT_510K # a subset of OpenMathInstruct-1 as trajectories
SFT_LEARNING_RATE=5e-6      # the source's published settings, as the next three
SFT_EPOCHS=4
SFT_BATCH_SIZE=64
SFT_MAX_LENGTH=4096

# The optimiser's file has the source's learning rate and batch size, pairs, reference and tool.
OPTIMISER=mdpo
RUN_GENERATED_CODE=yes
PROMPTS=math
EVAL_POOL=math-test # answered with the tool, and scored by the verifier
PROMPTS_PER_ITERATION=4500
TEMPERATURES=1.0
MAX_NEW_TOKENS=1024 # of each turn
DPO_EPOCHS=1
DPO_OPTIONS="--warmup_steps 0.1" # a share
PER_DEVICE_BATCH_SIZE=1
DISTRIBUTED=zero3
EVALS=academic
ACADEMIC_OPTIONS="--tasks gsm8k_cot minerva_math500" # without the tool
