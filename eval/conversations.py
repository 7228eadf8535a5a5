"""Conversations about the questions of benchmarks, turn by turn, with vLLM. For 1_answers.py."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from common import chats, thoughts

# By MT-Bench's category; all other questions are answered greedily.
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
NO_ROOM = "no room"  # the finish reason of a turn whose prompt fills the context


def turns_of(question):
    """The user's turns."""
    return question.get("turns") or [question.get("prompt") or question["instruction"]]


@dataclass
class Policy:
    """The model that answers."""

    engine: Any  # vLLM's
    tokenizer: Any
    end: chats.TurnEnd
    context: int  # tokens of a conversation at most
    seed: int


@dataclass
class Conversation:
    """The chat about one question, so far."""

    question_id: str | int
    question: dict
    messages: list = field(default_factory=list)  # as the policy sees them, thoughts included
    answers: list = field(default_factory=list)  # as the judges see them
    finish_reasons: list = field(default_factory=list)

    def add_answer(self, response, finish_reason, opened_by_template):
        """opened_by_template: the prompt ended within a thought."""
        self.messages.append({"role": "assistant", "content": response})
        self.finish_reasons.append(finish_reason)
        unfinished = opened_by_template and finish_reason == "length"
        answer = thoughts.without_thoughts(response, unfinished=unfinished)
        # The blank lines between a thought and its answer belong to neither.
        if answer != response:
            answer = answer.lstrip()
        self.answers.append(answer)


def longest(tokenizer, questions, max_new_tokens):
    """Tokens of the longest conversation: its turns, each with an answer of max_new_tokens.

    With several turns one more answer is kept free: an answer that is read again may have more
    tokens than it was sampled in.
    """
    lengths = []
    for question_id, question in questions.items():
        turns = turns_of(question)
        texts = []
        for turn in turns:
            chat = [{"role": "user", "content": turn}]
            texts.append(chats.prompt_text(tokenizer, chat, f"question {question_id!r}"))
        prompt_tokens = sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
        answers = len(turns) if len(turns) == 1 else len(turns) + 1
        lengths.append(prompt_tokens + max_new_tokens * answers)
    return max(lengths)


def converse(policy, questions, max_new_tokens):
    """Hold a conversation about each question: a row {"id", "answers", "ends"} for each."""
    conversations = [Conversation(*question) for question in questions.items()]
    most_turns = max(len(turns_of(question)) for question in questions.values())
    for turn in range(most_turns):
        going_on = [c for c in conversations if turn < len(turns_of(c.question))]
        answer_turn(policy, going_on, turn, max_new_tokens)
    answered = []
    for conversation in conversations:
        answered.append(
            {
                "id": conversation.question_id,
                "answers": conversation.answers,
                "ends": conversation.finish_reasons,
            }
        )
    return answered


def answer_turn(policy, conversations, turn, max_new_tokens):
    """Ask the next turn of all these conversations, in one batch, and add the answers."""
    requests = []
    settings = []
    with_room = []  # question ids of the requests
    for conversation in conversations:
        content = turns_of(conversation.question)[turn]
        conversation.messages.append({"role": "user", "content": content})
        where = f"question {conversation.question_id!r}"
        prompt = chats.prompt_text(policy.tokenizer, conversation.messages, where)
        ids = policy.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        max_tokens = min(max_new_tokens, policy.context - len(ids))
        if max_tokens > 0:
            requests.append({"prompt_token_ids": ids})
            settings.append(sampling_params(policy, conversation, turn, max_tokens))
            with_room.append(conversation.question_id)
    # Whether a prompt ends within a thought is up to the template: any of them tells.
    opened_by_template = chats.opens_thought(prompt)

    results = policy.engine.generate(requests, settings, use_tqdm=False) if requests else []
    sample_by_id = {}
    for question_id, result in zip(with_room, results, strict=True):
        sample_by_id[question_id] = result.outputs[0]
    for conversation in conversations:
        sample = sample_by_id.get(conversation.question_id)
        if sample:
            conversation.add_answer(sample.text, sample.finish_reason, opened_by_template)
        else:
            conversation.add_answer("", NO_ROOM, opened_by_template)


def sampling_params(policy, conversation, turn, max_tokens):
    from vllm import SamplingParams

    # The seed does not depend on the batch: a resumed run gives the same answers.
    seed_text = f"{policy.seed} {conversation.question_id} {turn}"
    seed = int(hashlib.sha256(seed_text.encode()).hexdigest()[:7], 16)
    # A model whose EOS is not the token that ends the template's turns would write on.
    stop_token_ids = [policy.end.token_id] if policy.end.token else None
    return SamplingParams(
        temperature=TEMPERATURES.get(conversation.question.get("category"), 0.0),
        max_tokens=max_tokens,
        seed=seed,
        stop_token_ids=stop_token_ids,
    )
