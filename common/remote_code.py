"""Code that comes with a model of the hub, written for an earlier transformers."""


def restore_names():
    """Give transformers the names again that it has removed and that such code imports.

    To be called before the code is loaded. RLHFlow/ArmoRM-Llama3-8B-v0.1 imports the text that
    documented Llama's forward pass.
    """
    from transformers.models.llama import modeling_llama

    if not hasattr(modeling_llama, "LLAMA_INPUTS_DOCSTRING"):
        modeling_llama.LLAMA_INPUTS_DOCSTRING = ""
