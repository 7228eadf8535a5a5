"""Run a training whose model has random weights, drawn where it is trained; none are on the disk.

    python speed/random_weights.py SCRIPT.py FLAGS...      or a module: trl.scripts.dpo FLAGS...

A model directory needs config.json and a tokenizer. For speed/training_speed.py: speed and memory
do not depend on the weights, but writing and reading 16 GB takes longer than the measurement.
"""

import runpy
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel

ON_META = "meta"  # a device without storage, for a look at names and shapes


def random_model(model_class, path, *_, **options):
    """In place of PreTrainedModel.from_pretrained, with the options that trainings give."""
    # The Auto classes have put options such as num_labels into a configuration.
    config = options.get("config") or AutoConfig.from_pretrained(path)
    dtype = options.get("dtype") or torch.float32
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.get("device_map") == ON_META:
        device = ON_META
    attention = options.get("attn_implementation") or config._attn_implementation_internal
    with torch.device(device):
        model = model_class._from_config(config, dtype=dtype, attn_implementation=attention)
    model.name_or_path = str(path)
    model.eval()
    if options.get("output_loading_info"):
        return model, dict.fromkeys(("missing_keys", "unexpected_keys", "mismatched_keys"), ())
    return model


def main():
    PreTrainedModel.from_pretrained = classmethod(random_model)
    sys.argv = sys.argv[1:]
    script = sys.argv[0]
    if script.endswith(".py"):
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
