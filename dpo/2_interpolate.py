"""Average the weights of policies that were trained for different ends (rewarded soups, arXiv 2306.04488).

Reads:  --models, Hugging Face model directories of one architecture with one vocabulary
Writes: --output_dir, the model whose every weight is the mean of theirs by --weights, and the first one's tokenizer

    python dpo/2_interpolate.py --models runs/tiny/iter3/policy runs/tiny/sft --weights 0.5 0.5 --output_dir my_mixture
"""

import sys

from common import arguments, model_outputs, models, outputs, rows


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument(
        "--weights",
        type=arguments.real(),
        nargs="+",
        help="one for each (default: equal); they sum to 1",
    )
    parser.add_output("--output_dir", "model", required=True)
    args = parser.parse_args()
    weights = args.weights or [1 / len(args.models)] * len(args.models)
    if len(weights) != len(args.models) or abs(sum(weights) - 1) > 1e-6:
        parser.error(
            f"--weights: {len(weights)} with the sum {sum(weights):g} for {len(args.models)} models; give 1"
        )

    from transformers import AutoModelForCausalLM

    tokenizer = models.tokenizer(args.models[0], template=False)
    mean, model = {}, None
    for name, weight in zip(args.models, weights, strict=True):
        model = models.load(AutoModelForCausalLM, name, tokenizer, dtype="auto")
        state = model.state_dict()
        if mean and {k: v.shape for k, v in mean.items()} != {k: v.shape for k, v in state.items()}:
            sys.exit(f"{name}: its weights are not of the names and shapes of {args.models[0]}")
        mean = {
            key: mean.get(key, 0) + weight * value.float() for key, value in state.items()
        }  # bfloat16 would round
    model.load_state_dict(mean)
    models.check_finite(args.output_dir, model)
    partial = outputs.partial_name(args.output_dir, rows.this_command([args.output_dir]))
    with model_outputs.lock_model(partial, args.output_dir):
        if not model_outputs.recover_model(partial, args.output_dir):
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            rows.publish(partial, args.output_dir)
    print(
        f"{args.output_dir} models in: {len(args.models)}, weights: {' '.join(f'{w:g}' for w in weights)}"
    )


if __name__ == "__main__":
    main()
