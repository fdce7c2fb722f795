# SPDX-License-Identifier: Apache-2.0
"""The trained DeBERTa of tests/golden/examples/ner finds names that it has never seen."""

from __future__ import annotations

import re

import pytest
from compare import HERE

import trine
from trine import _core

SENTENCES: list[tuple[str, list[tuple[str, str]]]] = [
    (
        "Ada Lovelace lived in London.",
        [("PER", "Ada Lovelace"), ("LOC", "London")],
    ),
    (
        (
            "Ingeborg Achterberg flew from São Paulo to Reykjavík to meet Anton Bruckner"
            " of Kestrel Energy."
        ),
        [
            ("PER", "Ingeborg Achterberg"),
            ("LOC", "São Paulo"),
            ("LOC", "Reykjavík"),
            ("PER", "Anton Bruckner"),
            ("ORG", "Kestrel Energy"),
        ],
    ),
    (
        "Yesterday Grace Hopper wrote to Emmy Noether from Göttingen.",
        [("PER", "Grace Hopper"), ("PER", "Emmy Noether"), ("LOC", "Göttingen")],
    ),
    (
        "The Icelandic singer Hildur Guðnadóttir lives in Valparaíso.",
        [("MISC", "Icelandic"), ("PER", "Hildur Guðnadóttir"), ("LOC", "Valparaíso")],
    ),
    (
        "Vattenfall and Nordström Labs signed a contract in Tromsø.",
        [("ORG", "Vattenfall"), ("ORG", "Nordström Labs"), ("LOC", "Tromsø")],
    ),
    ("The cat sat on the mat and nobody cared.", []),
]
# Words of the sentences' names that the training's lists have, too.
SEEN = {"São", "London", "Grace", "Energy", "Labs", "Icelandic"}


def told(found: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(x["label"], x["text"]) for x in found]


def test_names_are_new() -> None:
    script = (HERE / "make_ner.py").read_text()
    words = set(re.findall(r"\w+", " ".join(name for _, found in SENTENCES for _, name in found)))
    assert {word for word in words if re.search(rf"\b{word}\b", script)} == SEEN


@pytest.mark.parametrize("isa", _core.isas())
def test_entities(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRINE_ISA", isa)
    with trine.load(HERE / "examples" / "ner") as model:
        together = model.predict([text for text, _ in SENTENCES])
        for (text, wanted), found in zip(SENTENCES, together, strict=True):
            assert told(found) == wanted
            assert all(text[x["start"] : x["end"]] == x["text"] for x in found)
            assert all(x["score"] > 0.9 for x in found)
            assert model.predict(text) == found  # the same bits alone


def test_long_text() -> None:
    """Windows overlap: every entity once, at its place in the whole."""
    text, wanted = SENTENCES[1]
    with trine.load(HERE / "examples" / "ner") as model:
        assert model.max_seq_length == 128
        found = model.predict(" ".join([text] * 12))
    assert told(found) == wanted * 12
    assert [x["start"] for x in found] == sorted({x["start"] for x in found})
