"""Average the parameters of policies that were trained for different objectives.

The method is that of rewarded soups (arXiv 2306.04488): the policies have been fine-tuned from the
same model.

Reads:  --models, Hugging Face model directories of one architecture with one vocabulary
Writes: --output_dir, the average, weighted by --weights, in the precision and with the
        configuration of the last model, and the tokenizer of the first

    python dpo/2_interpolate.py --models runs/tiny/iter3/policy runs/tiny/sft --weights 0.5 0.5 \
        --output_dir my_mixture
"""

import sys

from common import arguments, model_outputs, models, outputs, rows


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument(
        "--weights",
        type=arguments.real(),
        nargs="+",
        help="one per model, with the sum 1 (default: equal)",
    )
    parser.add_output("--output_dir", "model", required=True)
    args = parser.parse_args()
    if args.weights is None:
        args.weights = [1 / len(args.models)] * len(args.models)
    if len(args.weights) != len(args.models) or abs(sum(args.weights) - 1) > 1e-6:
        parser.error(
            f"--weights: {len(args.weights)} with the sum {sum(args.weights):g} for "
            f"{len(args.models)} models; the sum has to be 1"
        )
    return args


def mean_model(paths, weights, tokenizer):
    """The last of the models, with the weighted mean of the weights of all models."""
    from transformers import AutoModelForCausalLM

    mean = {}
    for path, weight in zip(paths, weights, strict=True):
        model = models.load(AutoModelForCausalLM, path, tokenizer, dtype="auto")
        state = model.state_dict()
        if mean and shapes(state) != shapes(mean):
            sys.exit(f"{path}: its weights are not of the names and shapes of {paths[0]}")
        for name, tensor in state.items():
            # Summed in float32: bfloat16 would round each addition.
            mean[name] = mean.get(name, 0) + weight * tensor.float()
    model.load_state_dict(mean)
    return model


def shapes(state):
    return {name: tensor.shape for name, tensor in state.items()}


def save(model, tokenizer, output_dir):
    """Publish the model whole, or the one that a killed run of this command has finished."""
    partial = outputs.partial_name(output_dir, rows.this_command([output_dir]))
    with model_outputs.lock_model(partial, output_dir):
        if not model_outputs.recover_model(partial, output_dir):
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            rows.publish(partial, output_dir)


def main():
    args = parse_arguments()
    tokenizer = models.tokenizer(args.models[0], template=False)
    model = mean_model(args.models, args.weights, tokenizer)
    models.check_finite(args.output_dir, model)
    save(model, tokenizer, args.output_dir)
    weights = " ".join(f"{weight:g}" for weight in args.weights)
    print(f"{args.output_dir} models in: {len(args.models)}, weights: {weights}")


if __name__ == "__main__":
    main()
