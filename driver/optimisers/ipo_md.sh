# IPO-MD (arXiv 2403.08635): IPO on responses of the geometric mixture of the round's policy and pi_0, on their logits
# token by token, compared by the preference model; two a prompt at temperature 1. We could not look up
# IPO-MD's MIXTURE_COEFFICIENT; 0.5 is Nash-MD's.
ignores ENHANCER
default DPO_LOSS ipo
default ANNOTATOR preference_model
default N 2
default TEMPERATURES 1.0
sample_responses() { # as `sample` in driver/stages.sh, by two models that a process holds whole
  # shellcheck disable=SC2086
  shards=$processes order=$1 step "$2" python generation/2d_mixture_responses.py --model_name_or_path "$policy" \
    --ref_model_name_or_path "$SFT_MODEL" --mixture_coefficient "$MIXTURE_COEFFICIENT" --prompts_file "$1" --n "$N" \
    --temperatures $TEMPERATURES --max_new_tokens "$MAX_NEW_TOKENS" --dtype "$DTYPE" --seed "$SEED" "${template[@]}" \
    "${model_len[@]}" --output_file "$2"
}
check_ipo_md() { ((N > 1)) || die "OPTIMISER=ipo_md: N=$N, a pair needs two responses"; }
