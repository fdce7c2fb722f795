# SPDX-License-Identifier: Apache-2.0
"""Conversations to prompts: the chat template that a checkpoint brings along.

A template is a program from whoever made the checkpoint. It runs in jinja2's sandbox and sees
nothing but plain data: texts, numbers, lists and dicts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trine._core import InputError, ModelError
from trine.files import read_json, read_optional_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jinja2 import Template

Message = Mapping[str, Any]

_SIZE_LIMIT = 1 << 20  # characters of a template; the longest published ones have some 20 000


def read_template(folder: Path) -> str | None:
    """Return a folder's chat template, or None: chat_template.jinja goes before the JSON files.

    Raises
    ------
    ModelError
        A file that is broken, or several templates of which none is named "default".
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = read_optional_json(folder / name).get("chat_template")
        if isinstance(found, list):  # several, by name
            named = {x.get("name"): x.get("template") for x in found if isinstance(x, dict)}
            found = named.get("default")
            if found is None:
                raise ModelError(f"{folder / name}: chat_template has no template named 'default'")
        if isinstance(found, str):
            return found
        if found is not None:
            kind = type(found).__name__
            raise ModelError(f"{folder / name}: chat_template is a {kind}, expected a text")
    return None


def special_tokens(folder: Path) -> dict[str, str]:
    """Return every special token by role, as templates expect them: ``bos_token`` and others."""
    found: dict[str, str] = {}
    files = [folder / "special_tokens_map.json", folder / "tokenizer_config.json"]
    for path in files:
        for role, token in (read_json(path) if path.is_file() else {}).items():
            text = token.get("content") if isinstance(token, dict) else token
            if role.endswith("_token") and isinstance(text, str):
                found[role] = text
    return found


def render(
    template: str,
    messages: Sequence[Message],
    *,
    source: str,
    special: Mapping[str, str],
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Make the prompt of a conversation.

    Parameters
    ----------
    template : the chat template.
    messages : mappings with ``role`` and ``content``.
    source : where the template comes from, for messages.
    special : special tokens by role.
    add_generation_prompt : whether the answer's opening is added.
    tools : descriptions of functions, as JSON schemas, for templates that know them.
    variables : whatever else the template understands.

    Raises
    ------
    InputError
        Something that is no conversation, or that the template refuses.
    ModelError
        jinja2 is not installed, or the template is broken.
    """
    messages = check(messages)
    if tools is not None and not isinstance(tools, list | tuple):
        raise InputError(f"tools: expected a list of schemas, got {type(tools).__name__}")
    if variables is not None and not hasattr(variables, "keys"):
        kind = type(variables).__name__
        raise InputError(f"template_variables: expected a dict, got {kind}")
    compiled = _compile(template, source)
    from jinja2 import TemplateError

    values = {
        "tools": None,
        "documents": None,
        **special,
        **(variables or {}),
        "messages": messages,
        "add_generation_prompt": add_generation_prompt,
    }
    if tools is not None:
        values["tools"] = list(tools)
    try:
        return compiled.render(_plain(values))
    except TemplateError as error:
        raise InputError(f"{source}: the chat template refuses: {error}") from error
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise InputError(f"{source}: the chat template fails: {error!r}") from error


CONTENT = "{content}"  # where the content goes in what `frames` returns


def frames(template: str, *, source: str, special: Mapping[str, str]) -> dict[str, str]:
    """Find out what a template puts around each message, for programs without jinja.

    Returns
    -------
    dict of str to str
        ``begin``: before the first message; ``user`` and ``assistant``: a message, with `CONTENT`
        for what it says; ``answer``: the answer's opening; ``system``, where the template has such
        messages: one that takes the place of ``begin``. Empty if the template does anything else
        with conversations, or jinja2 isn't installed.
    """

    def run(*contents: str, system: str = "", answer: bool = False) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": x} for i, x in enumerate(contents)]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        return render(
            template, messages, source=source, special=special, add_generation_prompt=answer
        )

    try:
        before, behind = _parts(run("Uno"), "Uno")
        opened = run("Uno", answer=True)
        _, middle, end = _parts(run("Uno", "Due"), "Uno", "Due")
        _, _, between, _ = _parts(run("Uno", "Due", "Tre"), "Uno", "Due", "Tre")
        user = between.removeprefix(end)
        found = {
            "begin": before.removesuffix(user),
            "user": user + CONTENT + behind,
            "assistant": middle.removeprefix(behind) + CONTENT + end,
            "answer": opened.removeprefix(before + "Uno" + behind),
        }
        expected = [run(*"abcde", answer=True)]
        joined = [_joined(found, found["begin"], "abcde")]
    except (InputError, ModelError):
        return {}
    try:
        first, second, _ = _parts(run("Uno", system="Zero"), "Zero", "Uno")
        found["system"] = first + CONTENT + second.removesuffix(user)
        expected.append(run(*"abc", system="s", answer=True))
        joined.append(_joined(found, found["system"].replace(CONTENT, "s"), "abc"))
    except (InputError, ModelError):  # no such messages, as in some published templates
        found.pop("system", None)
    marks = {name: text.count(CONTENT) for name, text in found.items()}
    plain = all(n == (name not in ("begin", "answer")) for name, n in marks.items())
    return found if plain and joined == expected else {}


def _parts(text: str, *contents: str) -> list[str]:
    """Cut a text at contents that come once each, in this order; InputError if they don't."""
    parts = []
    for content in contents:
        if text.count(content) != 1:
            raise InputError(f"{content!r} is not there once")
        part, _, text = text.partition(content)
        parts.append(part)
    return [*parts, text]


def _joined(found: Mapping[str, str], begin: str, contents: str) -> str:
    """Return a conversation put together from frames, with the answer's opening."""
    roles = ("user", "assistant")
    turns = [found[roles[i % 2]].replace(CONTENT, x) for i, x in enumerate(contents)]
    return begin + "".join(turns) + found["answer"]


def check(messages: Any) -> list[Message]:
    """Return the messages of a conversation; InputError if it is none."""
    kind = type(messages).__name__
    if isinstance(messages, str | bytes | Mapping):
        raise InputError(f"messages: expected a list of messages, got {kind}")
    try:
        listed = list(messages)
    except TypeError as error:
        raise InputError(f"messages: expected a list of messages, got {kind}") from error
    for index, message in enumerate(listed):
        if not isinstance(message, Mapping) or "role" not in message:
            raise InputError(f"messages[{index}]: expected a dict with 'role' and 'content'")
    if not listed:
        raise InputError("messages: at least one is needed")
    return listed


def _plain(value: Any) -> Any:
    """Rebuild a value from plain types: objects would lend a template their methods."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    plain: Any  # the value without its class
    for kind, plain in ((str, str.__str__), (int, int.__int__), (float, float.__float__)):
        if isinstance(value, kind):
            return plain(value)
    return f"<{type(value).__name__}>"


@lru_cache(maxsize=16)
def _compile(template: str, source: str) -> Template:
    if len(template) > _SIZE_LIMIT:
        raise ModelError(f"{source}: the chat template has {len(template)} characters")
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ImportError as error:
        raise ModelError(
            "a chat template needs jinja2: pip install 'trine[chat]' (or generate from a prompt "
            "of your own)"
        ) from error
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_generation_tag(), jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    environment.globals["dict"] = _dict
    environment.globals["namespace"] = _namespace()
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(f"{source}: chat_template, line {error.lineno}: {error}") from error


def _generation_tag() -> Any:
    """Return the extension for {% generation %}, which marks answers for training: no effect."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return Generation


def _namespace() -> Any:
    """Return jinja2's namespace without attributes that begin with an underscore."""
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    class Guarded(Namespace):
        def __init__(*args: Any, **attributes: Any) -> None:
            self, *rest = args
            values = dict(*rest, **attributes)
            for name in values:
                _guard(name)
            Namespace.__init__(self, values)

        def __setitem__(self, name: str, value: Any) -> None:
            _guard(name)
            super().__setitem__(name, value)

    def _guard(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a template may not store {name!r} in a namespace")

    return Guarded


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - transformers' signature
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """Write JSON as transformers does: jinja2's own filter escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _dict(*args: Any, **items: Any) -> dict[Any, Any]:
    """Make a dict: the class itself has methods of its own."""
    return dict(*args, **items)


def _raise(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(pattern: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(pattern)  # noqa: DTZ005 - the user's own time, as transformers
