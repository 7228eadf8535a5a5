"""The question that a pairwise preference model is asked, in the text of the published model.

RLHFlow/pair-preference-model-LLaMA3-8B was trained on this user turn, and is asked by it: one
newline between the turns of the context, one before [RESPONSE A] and one at the end. Its code
removes the BOS token that the chat template adds; so do training and annotation here.
"""

from common import models, trajectories


def question(prompt, a, b):
    """A list of one message, the user turn that compares responses a and b to a prompt (messages).

    A response of several turns is compared as one text.
    The published code has no form for a system turn; here it is a turn of its own role.
    """
    context = ""
    for turn in prompt:
        context += f"\n<turn> {turn['role']}\n {turn['content']}"
    a = trajectories.text(a)
    b = trajectories.text(b)
    content = f"[CONTEXT] \n{context}\n [RESPONSE A] {a} [RESPONSE B] {b} \n"
    return [{"role": "user", "content": content}]


def sides(pair):
    """(messages before the responses, chosen, rejected) of a pair.

    Where both sides begin with the same turns, these are the context, and the last turns are
    compared; else the sides as a whole.
    """
    chosen = pair["chosen"]
    rejected = pair["rejected"]
    if chosen[:-1] != rejected[:-1]:
        return pair["prompt"], chosen, rejected
    context = pair["prompt"] + trajectories.for_template(chosen[:-1])
    return context, chosen[-1]["content"], rejected[-1]["content"]


def text(tokenizer, messages, where, **options):
    """The text of a question, or of a question with its answer, without BOS.

    where: FILE:LINE of its row, for messages.
    """
    rendered = models.render(tokenizer, messages, where, **options)
    return rendered.removeprefix(tokenizer.bos_token or "")
