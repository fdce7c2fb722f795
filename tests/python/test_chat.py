# SPDX-License-Identifier: Apache-2.0
"""Chat templates: where they are found, what they see, what they may not do."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trine import InputError, ModelError, chat

if TYPE_CHECKING:
    from pathlib import Path

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELLO = [{"role": "user", "content": "Hi!"}]


def render(template: str, messages: Any = None, **options: Any) -> str:
    options = {"source": "folder", "special": {"bos_token": "<s>"}} | options
    return chat.render(template, HELLO if messages is None else messages, **options)


def test_a_conversation() -> None:
    assert render(CHATML) == "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, add_generation_prompt=False) == "<|im_start|>user\nHi!<|im_end|>\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>Hi!"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi!"}]'),
        ("{{ {'a': '<é>'} | tojson(indent=1) }}", '{\n "a": "<é>"\n}'),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", "user"),
        ("{% for i in range(9) %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}", "2"),
        ("{{ dict(a=1)['a'] }}{{ tools is none }}{{ documents is none }}", "1TrueTrue"),
        ("{% if x is defined %}{{ x }}{% else %}no{% endif %}", "no"),
        ("{{ 'a{0.__class__}'.format(1) }}", "a"),  # what is unsafe is nothing
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("  {% if true %}\n  kept\n  {% endif %}\n", "  kept\n"),
    ],
)
def test_what_templates_use(template: str, expected: str) -> None:
    assert render(template) == expected


def test_variables_and_tools() -> None:
    tools = [{"name": "weather"}]
    assert render("{{ tools[0].name }} {{ x }}", tools=tools, variables={"x": 3}) == "weather 3"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ namespace(__class__=1) }}",
        "{% set n = namespace() %}{% set n.__init__ = 1 %}",
        "{{ range(99999999) | list }}",
        "{{ self.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'] }}",
    ],
)
def test_the_sandbox_holds(attack: str) -> None:
    with pytest.raises(InputError, match="folder: the chat template"):
        render(attack)


def test_templates_see_plain_data_only() -> None:
    class Sly(str):
        __slots__ = ()

        def leak(self) -> str:
            return "leaked"

    messages = [{"role": Sly("user"), "content": object(), "n": True, "list": (1, 2.5, None)}]
    assert render("{{ messages[0] }}", messages) == (
        "{'role': 'user', 'content': '<object>', 'n': True, 'list': [1, 2.5, None]}"
    )
    with pytest.raises(InputError, match="has no attribute 'leak'"):
        render("{{ messages[0].role.leak() }}", messages)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ("Hi", "got str"),
        ({"role": "user"}, "got dict"),
        ([], "at least one"),
        ([{"content": "Hi"}], r"messages\[0\]: expected a dict with 'role'"),
        ([*HELLO, "Hi"], r"messages\[1\]"),
        (3, "got int"),
        (np.array(3), "got ndarray"),
    ],
)
def test_no_conversation(messages: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        render(CHATML, messages)


def test_messages_from_an_iterator() -> None:
    assert render(CHATML, iter(HELLO)) == render(CHATML, HELLO)


def test_options_of_a_wrong_type() -> None:
    with pytest.raises(InputError, match="tools: expected a list of schemas, got int"):
        render(CHATML, tools=3)
    with pytest.raises(InputError, match="template_variables: expected a dict, got str"):
        render(CHATML, variables="x")


def test_refusals_and_mistakes() -> None:
    with pytest.raises(InputError, match="refuses: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match="fails: TypeError"):
        render("{{ messages[0].content + 1 }}")
    with pytest.raises(ModelError, match="folder: chat_template, line 2"):
        render("fine\n{% for %}")
    with pytest.raises(ModelError, match="characters"):
        render("x" * (1 << 21))


def test_without_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModelError, match=r"pip install 'trine\[chat\]'"):
        render("never compiled before")


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def test_where_templates_are_found(tmp_path: Path) -> None:
    assert chat.read_template(tmp_path) is None
    several = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    write(tmp_path, "tokenizer_config.json", {"chat_template": several})
    assert chat.read_template(tmp_path) == "d"
    write(tmp_path, "tokenizer_config.json", {"chat_template": "one"})
    assert chat.read_template(tmp_path) == "one"
    write(tmp_path, "chat_template.json", {"chat_template": "json"})
    assert chat.read_template(tmp_path) == "json"
    write(tmp_path, "chat_template.jinja", "jinja")
    assert chat.read_template(tmp_path) == "jinja"


@pytest.mark.parametrize("broken", [[{"name": "other"}], 3, {"a": "b"}])
def test_broken_files(tmp_path: Path, broken: object) -> None:
    write(tmp_path, "tokenizer_config.json", {"chat_template": broken})
    with pytest.raises(ModelError, match=r"tokenizer_config.json: chat_template"):
        chat.read_template(tmp_path)


def test_special_tokens(tmp_path: Path) -> None:
    write(tmp_path, "special_tokens_map.json", {"eos_token": "x", "pad_token": "p"})
    settings = {"eos_token": {"content": "</s>"}, "image_token": "<img>", "unk_token": None}
    write(tmp_path, "tokenizer_config.json", settings)
    assert chat.special_tokens(tmp_path) == {
        "eos_token": "</s>",
        "pad_token": "p",
        "image_token": "<img>",
    }
