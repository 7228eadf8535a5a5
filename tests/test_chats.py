"""The tokens of chats, by the chat templates of many families and small tokenizers made here.

Every stage must read the same text: the policy's prompt and response, the training rows, and what
is scored. The templates are TRL's and a few of our own that imitate others.
"""

import re
from pathlib import Path

import pytest
import trl
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models
from transformers import AddedToken, PreTrainedTokenizerFast

from common import chats, models, templates

OF_TRL = Path(trl.__file__).parent / "chat_templates"
MADE = Path(__file__).parent / "chat_templates"
QUESTION = {"role": "user", "content": "What is it?"}
CONVERSATION = [
    QUESTION,
    {"role": "assistant", "content": "It is seven."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Then eight."},
]
# The token that ends a turn, by template. In the last three it is the tokenizer's EOS.
ENDS = {
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "llama3_2": "<|eot_id|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_instruct_2507": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "phi3": "<|end|>",
    "phi3_5": "<|end|>",
    "lfm2": "<|im_end|>",
    "other_end": "[CONTEXT]",
    "always_open": "<|im_end|>",
    "gemma_like": "</s>",
    "mistral_like": "</s>",
    "r1_like": "</s>",
}
# Templates without thoughts.
PLAIN = [name for name in ENDS if name not in ("qwen3", "r1_like")]
MARKS = re.compile(
    r"<\|[A-Za-z_]+\|>|<\uff5c[^\uff5c>]*\uff5c>|<turn\|>|<(?:start|end)_of_turn>|\[/?[A-Z]+\]"
)
THOUGHT = "I count.\nSeven, I think."
GENERATION_PROMPT = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


def made_tokenizer(template, name="made"):
    """A byte-level tokenizer in which each mark of the template is a token."""
    bpe = Tokenizer(token_models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "\n\n What is it? It is seven.\n\n And then? Then eight."
    bpe.train_from_iterator([text] * 9, trainer)
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **special)
    tokenizer.add_tokens(sorted(set(MARKS.findall(template))))
    tokenizer.chat_template = models.prepared_template(name, template)
    tokenizer.name_or_path = name
    return tokenizer


def tokenizer_of(name):
    file = MADE / f"{name}.jinja"
    if not file.exists():
        file = OF_TRL / f"{name}.jinja"
    return made_tokenizer(file.read_text(), name)


def learned(tokenizer, conversation):
    """The texts on which the loss is computed."""
    texts, ids = [], []
    for label in [*conversation.labels, chats.NO_LOSS]:
        if label != chats.NO_LOSS:
            ids.append(label)
        elif ids:
            texts.append(tokenizer.decode(ids))
            ids = []
    return texts


# What ends a turn


@pytest.mark.parametrize("name", ENDS)
def test_a_template_tells_what_ends_a_turn(name):
    tokenizer = tokenizer_of(name)
    end = chats.turn_end(tokenizer)
    assert end.token == ENDS[name]
    assert end.token_id == tokenizer.convert_tokens_to_ids(ENDS[name])
    assert end.text.strip() == end.token
    assert end.closing.rstrip() == end.token


def test_a_template_without_an_end_falls_back_on_eos():
    tokenizer = tokenizer_of("no_end")
    end = chats.turn_end(tokenizer)
    assert (end.token, end.token_id, end.closing) == (None, tokenizer.eos_token_id, "")


def prompt_ids_of(tokenizer):
    """The tokens of QUESTION from which generation starts."""
    chat = tokenizer.apply_chat_template([QUESTION], add_generation_prompt=True, return_dict=True)
    return chat["input_ids"]


# Supervised fine-tuning


@pytest.mark.parametrize("name", PLAIN)
def test_the_loss_is_on_what_the_assistant_says_and_what_ends_its_turns(name):
    tokenizer = tokenizer_of(name)
    end = chats.turn_end(tokenizer)
    conversation = chats.conversation(tokenizer, end, CONVERSATION, "FILE:1")
    # Mistral's template writes a blank before an answer.
    texts = [text.removeprefix(" ") for text in learned(tokenizer, conversation)]
    assert texts == [f"It is seven.{end.text}", f"Then eight.{end.text}"]
    assert not conversation.left_out
    text = models.render(tokenizer, CONVERSATION, "FILE:1")
    assert tokenizer.decode(conversation.input_ids) == text
    prompt_ids = prompt_ids_of(tokenizer)
    assert conversation.input_ids[: len(prompt_ids)] == prompt_ids


def test_markers_of_the_template_give_the_same_loss():
    """The loss is computed on the tokens that a template marks by {% generation %}."""
    tokenizer = tokenizer_of("other_end")
    marked = tokenizer.apply_chat_template(
        CONVERSATION, return_dict=True, return_assistant_tokens_mask=True
    )
    conversation = chats.conversation(tokenizer, chats.turn_end(tokenizer), CONVERSATION, "FILE:1")
    has_loss = [label != chats.NO_LOSS for label in conversation.labels]
    assert has_loss == [bool(mask) for mask in marked["assistant_masks"]]


def test_older_turns_that_the_template_rewrites_are_left_out():
    """Qwen3 writes an empty thought before the last answer, not before older ones."""
    tokenizer = tokenizer_of("qwen3")
    conversation = chats.conversation(tokenizer, chats.turn_end(tokenizer), CONVERSATION, "FILE:1")
    assert learned(tokenizer, conversation) == ["<think>\n\n</think>\n\nThen eight.<|im_end|>"]
    assert conversation.left_out == 1


def test_an_answer_with_its_thought_is_learned_as_it_was_sampled():
    """R1's template opens the thought in the prompt, and removes it from answers."""
    tokenizer = tokenizer_of("r1_like")
    end = chats.turn_end(tokenizer)
    for answer in (f"{THOUGHT}\n</think>\n\nSeven.", f"<think>\n{THOUGHT}\n</think>\n\nSeven."):
        messages = [QUESTION, {"role": "assistant", "content": answer}]
        conversation = chats.conversation(tokenizer, end, messages, "FILE:1")
        assert learned(tokenizer, conversation) == [f"{THOUGHT}\n</think>\n\nSeven.</s>"]
    without_thoughts = chats.conversation(tokenizer, end, CONVERSATION, "FILE:1")
    assert not learned(tokenizer, without_thoughts)
    assert without_thoughts.left_out == 2


# Pairs and samples


def answered(tokenizer, response, prompt=(QUESTION,)):
    """(text of the prompt, text of the response) of a training row, or None."""
    end = chats.turn_end(tokenizer)
    messages = [{"role": "assistant", "content": response}]
    return chats.prompt_and_response(tokenizer, end, [*prompt], messages, "FILE:1")


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("response", ["Seven.", " Seven.", "\n\nSeven.", "", "7️⃣ \n"])
def test_prompt_and_response_are_the_tokens_of_a_sample(name, response):
    """The prompt's tokens are those of generation, whatever the response begins with."""
    tokenizer = tokenizer_of(name)
    end = chats.turn_end(tokenizer)
    if name == "r1_like":
        response = f"{response}</think>"
    prompt_ids, ids = chats.encode(tokenizer, *answered(tokenizer, response))
    assert prompt_ids == prompt_ids_of(tokenizer)
    assert tokenizer.decode(ids).endswith(response + end.closing)
    assert end.token_id in ids
    assert (prompt_ids + ids).count(tokenizer.bos_token_id) <= 1


def test_a_response_of_others_stands_as_the_template_writes_it():
    """Mistral's template writes a blank before an answer, Qwen3's an empty thought.

    A response that the policy sampled has them already.
    """
    mistral = tokenizer_of("mistral_like")
    for response in ("Seven.", " Seven."):
        assert answered(mistral, response)[1] == " Seven.</s>"
    qwen = tokenizer_of("qwen3")
    empty = "<think>\n\n</think>\n\n"
    for response in ("Seven.", f"{empty}Seven."):
        assert answered(qwen, response)[1] == f"{empty}Seven.<|im_end|>\n"
    thought = f"<think>\n{THOUGHT}\n</think>\n\nSeven."
    assert answered(qwen, thought)[1] == f"{thought}<|im_end|>\n"


def test_several_turns_of_a_response_follow_the_prompt():
    tokenizer = tokenizer_of("llama3")
    end = chats.turn_end(tokenizer)
    prompt, rest = chats.prompt_and_response(tokenizer, end, [QUESTION], CONVERSATION[1:], "FILE:1")
    assert prompt + rest == models.render(tokenizer, CONVERSATION, "FILE:1")


def test_thoughts_that_do_not_fit_the_prompt_make_no_sample():
    """The prompt opens a thought that the response does not end, or holds an empty thought."""
    assert answered(tokenizer_of("r1_like"), "Seven.") is None
    tokenizer = tokenizer_of("qwen3")
    models.set_template_arguments(tokenizer, '{"enable_thinking": false}')
    response = f"<think>\n{THOUGHT}\n</think>\n\nSeven."
    assert answered(tokenizer, response) is None
    messages = [QUESTION, {"role": "assistant", "content": response}]
    conversation = chats.conversation(tokenizer, chats.turn_end(tokenizer), messages, "FILE:1")
    assert not learned(tokenizer, conversation)
    assert conversation.left_out == 1


def test_thoughts_with_other_marks_are_thoughts():
    """For example Magistral's: the marks are those that the judges and the verifier know."""
    template = (MADE / "r1_like.jinja").read_text()
    template = template.replace("<think>", "[THINK]").replace("</think>", "[/THINK]")
    tokenizer = made_tokenizer(template)
    assert answered(tokenizer, "Seven.") is None
    for response in (f"{THOUGHT}[/THINK]Seven.", f"[THINK]\n{THOUGHT}[/THINK]Seven."):
        assert answered(tokenizer, response)[1] == f"{THOUGHT}[/THINK]Seven.</s>\n"


def test_the_blank_before_the_end_is_not_doubled():
    """Llama 2's template writes a blank before </s>, and so does a policy trained on it."""
    end = "(' </s>' if m['role'] != 'user' else '')"
    template = f"{{% for m in messages %}}{{{{ m['role'] + ': ' + m['content'] + {end} }}}}"
    tokenizer = made_tokenizer(template + "{% endfor %}" + GENERATION_PROMPT)
    for response in ("Seven.", "Seven. "):
        assert answered(tokenizer, response)[1] == "Seven. </s>"


# Tokens


def test_the_first_word_is_learned_where_the_prompt_ends_with_a_blank():
    """A single token would hold the prompt's blank and the first word of the answer."""
    turn = "{{ m['role'] + ': ' + m['content'] + eos_token }}"
    template = "{% for m in messages %}" + turn + "{% endfor %}"
    tokenizer = made_tokenizer(template + GENERATION_PROMPT)
    conversation = chats.conversation(tokenizer, chats.turn_end(tokenizer), CONVERSATION, "FILE:1")
    assert learned(tokenizer, conversation) == ["It is seven.</s>", "Then eight.</s>"]


def test_an_end_that_strips_blanks_is_learned():
    """Tokens of Phi-3 include the blanks after them, and so reach beyond the end of the turn."""
    tokenizer = tokenizer_of("phi3")
    tokenizer.add_tokens([AddedToken("<|end|>", rstrip=True, special=True)])
    conversation = chats.conversation(tokenizer, chats.turn_end(tokenizer), CONVERSATION, "FILE:1")
    assert learned(tokenizer, conversation) == ["It is seven.<|end|>", "Then eight.<|end|>"]


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_a_tokenizer_of_sentencepiece_reads_the_whole_text(scheme):
    words = Tokenizer(token_models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    words.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    text = "[INST] What is it? And then? [/INST] It is seven. Then eight. answer a b"
    words.train_from_iterator([text] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        name_or_path="made",
    )
    tokenizer.chat_template = (MADE / "mistral_like.jinja").read_text()
    end = chats.turn_end(tokenizer)
    conversation = chats.conversation(tokenizer, end, CONVERSATION, "FILE:1")
    texts = [text.strip() for text in learned(tokenizer, conversation)]
    assert end.token == "</s>"
    assert texts == ["It is seven.</s>", "Then eight.</s>"]
    prompt_ids, ids = chats.encode(tokenizer, *answered(tokenizer, "It is seven."))
    text = models.render(tokenizer, CONVERSATION[:2], "FILE:1")
    assert prompt_ids + ids == tokenizer(text, add_special_tokens=False)["input_ids"]


# Choices


@pytest.mark.parametrize("name", ENDS)
def test_a_and_b_are_read_where_they_are_trained(name):
    """In a whole chat the letter is as many tokens from the end as `choice` says."""
    tokenizer = tokenizer_of(name)
    (a, b), length = chats.choice(tokenizer)
    for letter, token in (("A", a), ("B", b)):
        chat = [QUESTION, {"role": "assistant", "content": letter}]
        text = models.render(tokenizer, chat, "FILE:1")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids[-length] == token
        assert tokenizer.decode([token]).strip() == letter


# Templates


def test_a_system_turn_is_refused_by_the_name_of_the_template(capsys):
    system = {"role": "system", "content": "Be brief."}
    for name in ("gemma", "gemma_like", "mistral_like"):
        with pytest.raises(SystemExit) as ended:
            models.render(tokenizer_of(name), [system, QUESTION], "FILE:7")
        message = f"FILE:7: the chat template of {name} refuses it (TemplateError: "
        assert str(ended.value).startswith(message)


def test_a_template_that_reads_the_clock_gets_a_fixed_date(capsys):
    tokenizer = tokenizer_of("llama3_2")
    assert "Today Date: 26 Jul 2024" in models.render(tokenizer, [QUESTION], "FILE:1")
    message = "llama3_2: its chat template asks for today's date, it gets 2024-07-26\n"
    assert capsys.readouterr().err == message
    assert templates.without_clock("{{ strftime_now( '%Y-%m-%d' ) }}") == '{{ "2024-07-26" }}'


def test_arguments_become_part_of_the_template():
    """A model that is saved with its template then gets the prompts of its training."""
    tokenizer = tokenizer_of("qwen3")
    for value in ("true", "false", "false"):
        models.set_template_arguments(tokenizer, f'{{"enable_thinking": {value}}}')
    assert chats.prompt_text(tokenizer, [QUESTION], "FILE:1").endswith("<think>\n\n</think>\n\n")
    assert tokenizer.chat_template.count("{% set enable_thinking") == 1
    conversation = chats.conversation(tokenizer, chats.turn_end(tokenizer), CONVERSATION, "FILE:1")
    assert learned(tokenizer, conversation) == ["Then eight.<|im_end|>"]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "'{' is not JSON"),
        ("[1]", "'[1]' is not a JSON object"),
        ('{"note": NaN}', "note: a name with a text, a number, true or false is needed"),
        ('{"messages": "x"}', "messages: no argument can have that name"),
        ('{"if": 1}', "if: no argument can have that name"),
        ('{"note": 1e999}', "note: a name with a text, a number, true or false is needed"),
        ('{"a b": 1}', "a b: a name with a text, a number, true or false is needed"),
        (
            '{"enable_thinking": null}',
            "enable_thinking: a name with a text, a number, true or false is needed",
        ),
        ('{"thinking_mode": 1}', "thinking_mode: the chat template of qwen3 does not read it"),
    ],
)
def test_arguments_that_are_none(text, reason):
    with pytest.raises(SystemExit) as ended:
        models.set_template_arguments(tokenizer_of("qwen3"), text)
    assert str(ended.value) == f"--chat_template_kwargs: {reason}"
