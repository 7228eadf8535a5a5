# RAFT (arXiv 2304.06767): fine-tuning on the best of n, iterated. No reference, no worst response. Where a verifier alone
# says what is right, prompts without a right response are left out.
ignores DPO_LOSS DPO_BETA PAIRING MIN_MARGIN REFERENCE
make_pairs() {
  local right=()
  [[ $ANNOTATOR != verifier ]] || right=(--min_reward 0.5) # what PAIRING=right_wrong calls right
  step "$dir/best.jsonl" python annotation/2b_best.py --rewards_file "$1" --n "$N" --length_penalty "$LENGTH_PENALTY" \
    "${right[@]}" --for_training --output_file "$dir/best.jsonl"
  training_data+=("$dir/best.jsonl")
}
optimise() {
  local to=$1 start=$2
  train_policy "$to" sft/2_finetune.py --model_name_or_path "$start" --max_length "$DPO_MAX_LENGTH" \
    --dataset_name "${@:4}"
}
