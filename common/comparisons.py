"""The question that a pairwise preference model is asked, in the text of the published model.

RLHFlow/pair-preference-model-LLaMA3-8B was trained on, and is asked in, this user's turn: one newline between the
turns of the context, one before [RESPONSE A] and one at the end. Its code takes the BOS token out that the chat
template adds, and so do training and annotation here.
"""

from common import models


def question(prompt, a, b):
    """The user's turn, a list of one message, in which the responses a and b to a prompt (messages) are compared.

    A system turn, which the published code has no form for, is a turn of its own role.
    """
    turns = "".join(f"\n<turn> {turn['role']}\n {turn['content']}" for turn in prompt)
    return [
        {"role": "user", "content": f"[CONTEXT] \n{turns}\n [RESPONSE A] {a} [RESPONSE B] {b} \n"}
    ]


def text(tokenizer, messages, where, **options):
    """The text of a question, or of a question with its answer, without BOS. where: FILE:LINE of its row."""
    rendered = models.render(tokenizer, messages, where, **options)
    return rendered.removeprefix(tokenizer.bos_token or "")
