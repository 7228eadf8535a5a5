"""Code that comes with a model of the hub, written for an earlier transformers."""


def restore_names():
    """Give back the names that transformers took out and that such code imports, before it is loaded.

    RLHFlow/ArmoRM-Llama3-8B-v0.1 imports a text for the documentation of its forward pass.
    """
    from transformers.models.llama import modeling_llama

    if not hasattr(modeling_llama, "LLAMA_INPUTS_DOCSTRING"):
        modeling_llama.LLAMA_INPUTS_DOCSTRING = ""
