# SPDX-License-Identifier: Apache-2.0
"""What `Generator` makes of the tokens that the core gives: prompts, ends, text, streams."""

from __future__ import annotations

import json
import threading
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes import FakeSession, make_byte_level, make_generator

import trine
from trine import Generator, InputError, ModelError, _core, sessions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOKENIZER = make_byte_level()
BOS, EOS, PAD = 0, 1, 2
SIZE = TOKENIZER.get_vocab_size()


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def chain(text: str, *more: int) -> dict[int, int]:
    """A table that makes the model say `text` after a "!", if no byte comes twice."""
    tokens = [*ids_of("!" + text), *more]
    assert len(set(tokens)) == len(tokens)
    return dict(pairwise(tokens))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`make(follows, config=, files=)`: a Generator over a fake core, `model._core`."""
    monkeypatch.setattr(_core, "Session", FakeSession)
    return partial(make_generator, tmp_path)


def test_a_text(make: Any) -> None:
    model = make(chain("abc", EOS))
    found = model.generate("Go!")
    assert found == {"text": "abc", "tokens": [*ids_of("abc"), EOS], "finish_reason": "stop"}
    assert (found.text, found.tokens, found.finish_reason) == tuple(found.values())
    assert found.logprobs is None
    assert json.loads(json.dumps(found)) == found
    assert model.generate(["Go!", "Go!"]) == [found, found]
    assert model.predict(["Go!"], show_progress=False) == [found]
    assert model.generate(ids_of("Go!")) == found
    assert model.generate([np.array(ids_of("Go!")), "Go!"]) == [found, found]
    assert model.generate([]) == []
    assert model.generate("Go!", max_new_tokens=2) == {
        "text": "ab",
        "tokens": ids_of("ab"),
        "finish_reason": "length",
    }


def test_prompts_alone_and_together(make: Any) -> None:
    model = make()
    prompts = ["a", "some longer prompt", "b c", "a prompt", "some longer end"]
    options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 1.5, "seed": 3, "logprobs": 2}
    alone = [model.generate(p, **options) for p in prompts]
    assert model.generate(prompts, **options) == alone
    assert model.generate(prompts[::-1], **options) == alone[::-1]
    for size in (1, 2, 9):
        model._core.most = 0
        assert model.generate(prompts, batch_size=size, **options) == alone
        assert model._core.most == min(size, len(prompts))
    assert not any(session.rows for session in model._core.sessions)


def test_memory_bounds_what_is_under_way(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    wanted = model.generate(["a", "b", "c", "d"], max_new_tokens=10)
    assert model._core.most == 4
    monkeypatch.setattr(sessions, "_CACHE_BYTES", 25)  # two prompts of 11 tokens
    model._core.most = 0
    assert model.generate(["a", "b", "c", "d"], max_new_tokens=10) == wanted
    assert model._core.most == 2


def test_what_all_prompts_begin_with_is_computed_once(make: Any) -> None:
    model = make()
    prompts = ["The same long beginning: " + x for x in ("one", "two", "", "three")]
    alone = [model.generate(p, max_new_tokens=5) for p in prompts]
    model._core.computed = 0
    assert model.generate(prompts, max_new_tokens=5) == alone
    shared = len(ids_of("The same long beginning: "))
    assert model._core.computed <= shared + sum(len(ids_of(x)) for x in ("onetwothree",)) + 1


def test_seeds(make: Any) -> None:
    model = make()
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 2.0}
    one = model.generate("a", seed=5, **options)
    assert model.generate("a", seed=5, **options) == one
    assert model.generate("a", seed=6, **options) != one
    twice = model.generate(["a", "a"], seed=5, **options)
    assert twice[0] == one
    assert twice[1] != one
    assert model.generate("a", **options) != model.generate("a", **options)


def test_stop_strings(make: Any) -> None:
    model = make(chain("one, TWO.", EOS))
    assert model.generate("!", stop=", T") == {
        "text": "one",
        "tokens": ids_of("one, T"),
        "finish_reason": "stop",
    }
    assert model.generate("!", stop=["x", "WO", "TWO"]).text == "one, "
    assert model.generate("!", stop=["no such", "TWO.and"]).text == "one, TWO."
    assert model.generate("!", stop=["TWO.and"], max_new_tokens=6).text == "one, T"
    assert list(model.stream("!", stop=[", TX"])) == ["o", "n", "e", ", TW", "O", "."]


def test_a_special_token_as_stop_string(make: Any) -> None:
    model = make(chain("ab", PAD))
    assert model.generate("!", stop="<pad>") == {
        "text": "ab",
        "tokens": [*ids_of("ab"), PAD],
        "finish_reason": "stop",
    }


@pytest.mark.parametrize(
    ("config", "files", "ends"),
    [
        ({}, {}, (EOS,)),
        ({"eos_token_id": [7, 8]}, {}, (7, 8)),
        ({"eos_token_id": [7, 8]}, {"generation_config.json": {"eos_token_id": 9}}, (9,)),
        ({"eos_token_id": 7}, {"generation_config.json": {"eos_token_id": [5, 6]}}, (5, 6)),
        ({"eos_token_id": 7}, {"generation_config.json": {"eos_token_id": None}}, (7,)),
        ({"eos_token_id": None}, {}, (EOS,)),
    ],
)
def test_end_tokens(make: Any, config: Any, files: Any, ends: Any) -> None:
    assert make(config=config, files=files).eos_token_ids == ends


def test_broken_end_tokens(make: Any) -> None:
    model = make(files={"generation_config.json": {"eos_token_id": ["</s>"]}})
    with pytest.raises(ModelError, match=r"generation_config.json: eos_token_id is \['</s>'\]"):
        model.generate("a")


def test_least_length(make: Any) -> None:
    model = make(chain("ab", EOS))
    found = model.generate("!", min_new_tokens=6, max_new_tokens=9)
    assert len(found.tokens) >= 6
    assert EOS not in found.tokens[:6]


def test_logprobs(make: Any) -> None:
    model = make(chain("a\u00e9", EOS))
    found = model.generate("!", logprobs=2)
    assert [x["token"] for x in found.logprobs] == found.tokens
    assert [x["text"] for x in found.logprobs] == ["a", "\ufffd", "\ufffd", "</s>"]
    assert [len(x["top"]) for x in found.logprobs] == [2] * 4
    assert found.logprobs[0]["top"][0] == {"token": ids_of("a")[0], "text": "a", "logprob": 9.0}
    assert model.generate("!", logprobs=0).logprobs[0]["top"] == []


def test_streams(make: Any) -> None:
    model = make(chain("h\u00e9\U0001f999.", EOS))
    stream = model.stream("!")
    assert list(stream) == ["h", "\u00e9", "\U0001f999", "."]
    assert stream.result == model.generate("!")
    assert stream.result.finish_reason == "stop"
    cut = model.stream("!", max_new_tokens=5)  # within the last character
    assert list(cut) == ["h", "\u00e9", "\ufffd"]
    assert cut.result.finish_reason == "length"


def test_a_stream_that_is_closed(make: Any) -> None:
    model = make(chain("abcdef", EOS))
    with model.stream("!") as stream:
        assert next(stream) + next(stream) == "ab"
    assert list(stream) == []
    assert stream.result == {
        "text": "ab",
        "tokens": ids_of("ab"),
        "finish_reason": "cancelled",
    }
    assert model.stream("!").result.finish_reason == "cancelled"


def test_cancelled_by_an_event(make: Any) -> None:
    model = make(chain("abcdef", EOS))
    event = threading.Event()
    pieces = []
    for piece in (stream := model.stream("!", cancel=event)):
        pieces.append(piece)
        if piece == "c":
            event.set()
    assert "".join(pieces) == stream.result.text == "abc"
    assert stream.result.finish_reason == "cancelled"
    found = model.generate(["!", "x"], cancel=event)
    assert [x.finish_reason for x in found] == ["cancelled"] * 2
    assert [x.tokens for x in found] == [[], []]


def test_conversations(make: Any) -> None:
    model = make(chain("abc", EOS))
    model._core.follows |= {ids_of(":")[0]: ids_of("a")[0]}
    messages = [{"role": "user", "content": "Hi"}]
    prompt = "<s>user: Hi</s><s>assistant:"
    assert model.chat_prompt(messages) == prompt
    found = model.chat(messages)
    assert found.text == "abc"
    assert "".join(model.stream(messages)) == "abc"
    assert model.generate(messages) == found
    assert model.generate([messages, "Go!", messages]) == [found, model.generate("Go!"), found]
    assert TOKENIZER.encode(prompt, add_special_tokens=False).ids[0] == BOS
    assert model.chat_prompt(messages, add_generation_prompt=False) == "<s>user: Hi</s>"


def test_a_conversation_ends_with_the_tokenizer_s_token_too(make: Any) -> None:
    model = make(chain("ab", EOS), config={"eos_token_id": 9})
    model._core.follows |= {ids_of(":")[0]: ids_of("a")[0]}
    messages = [{"role": "user", "content": "Hi"}]
    assert model.chat(messages).finish_reason == "stop"
    assert model.generate([messages], max_new_tokens=3)[0].finish_reason == "stop"
    assert model.generate("!", max_new_tokens=3).finish_reason == "length"


def test_each_prompt_of_a_list_ends_by_its_own_rule(make: Any) -> None:
    model = make(chain("ab", EOS), config={"eos_token_id": 9})
    model._core.follows |= {ids_of(":")[0]: ids_of("a")[0], EOS: ids_of("c")[0]}
    talk = [{"role": "user", "content": "Hi"}]
    answer = model.chat(talk)
    assert (answer.text, answer.finish_reason) == ("ab", "stop")
    options: dict[str, Any] = {"max_new_tokens": 4}
    with model.stream(talk) as stream:
        assert stream.finish() == answer
    assert model.generate(talk) == answer
    assert model.generate([talk]) == [answer]
    text = model.generate("!", **options)
    assert (text.tokens[2:], text.finish_reason) == ([EOS, ids_of("c")[0]], "length")
    for size in (None, 1):
        found = model.generate(["!", talk, "!", talk], batch_size=size, **options)
        assert found == [text, answer, text, answer]


def test_half_of_a_surrogate_pair(make: Any) -> None:
    model = make()
    with pytest.raises(InputError, match="input 0 has half of a surrogate pair"):
        model.stream("a\ud800")
    with pytest.raises(InputError, match="the conversation has half of a surrogate pair"):
        model.chat([{"role": "user", "content": "a\ud800"}])


def test_numbers_of_numpy_and_no_stop_strings(make: Any) -> None:
    model = make(chain("abc", EOS))
    wanted = model.generate("!", max_new_tokens=2, min_p=0.5, temperature=1.0, seed=3)
    options = {"min_p": np.float32(0.5), "temperature": np.float64(1), "seed": np.uint8(3)}
    counts: Any = {"max_new_tokens": np.int64(2), "batch_size": np.int32(1), "stop": None}
    found = model.generate(np.array("!"), **options, **counts)
    assert found == wanted
    assert model.generate("!", stop={"c"}).text == model.generate("!", stop=np.array(["c"])).text


def test_no_template(make: Any) -> None:
    model = make(files={"tokenizer_config.json": {"eos_token": "</s>"}})
    with pytest.raises(ModelError, match="no chat template"):
        model.chat([{"role": "user", "content": "Hi"}])


def test_room(make: Any) -> None:
    model = make(usual=8)
    assert model.max_seq_length == 8
    found = model.generate("abcde", max_new_tokens=50)
    assert (len(found.tokens), found.finish_reason) == (3, "length")
    with pytest.raises(InputError, match="input 1 has 8 tokens: with max_seq_length 8"):
        model.generate(["a", "abcdefgh"])
    model.max_seq_length = 20
    assert len(model.generate("abcdefgh", max_new_tokens=50).tokens) == 12


def test_without_a_tokenizer(make: Any) -> None:
    model = make(tokenizer=False)
    found = model.generate([[5, 6, 7]], max_new_tokens=4, logprobs=1)[0]
    assert (found.text, len(found.tokens)) == ("", 4)
    with pytest.raises(InputError, match="no tokenizer"):
        model.generate([5, 6], stop="x")
    with pytest.raises(ModelError, match="token ids but no text"):
        model.generate("text")


def test_logits_that_are_no_numbers(make: Any) -> None:
    model = make()
    model._core.broken = True
    with pytest.raises(ModelError, match="input 0: the logits"):
        model.generate("a")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens is 9, but"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": True}, "min_p is True"),
        ({"top_k": -2}, "top_k is -2"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"stop": [""]}, "stop is"),
        ({"stop": [3]}, r"stop\[0\]: expected a text, got int"),
        ({"stop": 3}, "stop: expected a list of texts, got int"),
        ({"top_k": 2**31}, "top_k is 2147483648, expected an integer of at most"),
        ({"max_new_tokens": 2**31}, "max_new_tokens is 2147483648"),
        ({"temperature": 10**400}, "temperature is 1000"),
        ({"min_p": np.True_}, "min_p is "),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"batch_size": "a"}, "batch_size is 'a'"),
        ({"cancel": 3}, "cancel: expected a threading.Event, got int"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_out_of_range(make: Any, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make().generate("a", **options)


@pytest.mark.parametrize(
    ("prompts", "complaint"),
    [
        ("", "input 0 has no tokens"),
        (["a", ""], "input 1 has no tokens"),
        ([[1, 2], []], "input 1 has no tokens"),
        ([[[1, 2]]], "expected one row"),
        ([1.5], "input 0"),
        (b"text", "got bytes"),
        (["a", "b\ud800"], "input 1 has half of a surrogate pair, '.ud800', at character 1"),
        ([[{"role": "user", "content": "\ud800"}]], "input 0 has half of a surrogate pair"),
        ([["a", "b"]], "expected integers"),
    ],
)
def test_prompts_that_are_none(make: Any, prompts: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make().generate(prompts)


def test_a_stream_takes_one_prompt(make: Any) -> None:
    with pytest.raises(InputError, match="one prompt"):
        make().stream(["a", "b"])


def test_unknown_keywords(make: Any) -> None:
    with pytest.raises(TypeError, match="beams"):
        make().generate("a", beams=3)


def test_info(make: Any) -> None:
    assert make().info()["outputs"] == {"logits": SIZE}
    assert trine.Generator is Generator
