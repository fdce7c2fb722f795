# SPDX-License-Identifier: Apache-2.0
"""What a user reads after an obvious mistake: the argument, its value, and what was expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trine

EXAMPLES = Path(__file__).resolve().parents[1] / "golden" / "examples"
TAGGER = str(EXAMPLES / "tag")


@pytest.fixture(scope="module")
def generator() -> Any:
    with trine.load(EXAMPLES / "chat") as model:
        yield model


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"source": "no/such/folder"}, trine.ModelError, "no/such/folder: no such file"),
        (
            {"source": None},
            trine.InputError,
            "source: expected a path, a Hub id or 'demo', got Non",
        ),
        ({"source": TAGGER, "threads": 0}, trine.InputError, "threads is 0, expected an integer"),
        ({"source": TAGGER, "threads": "2"}, trine.InputError, "threads is '2', expected an int"),
        ({"source": TAGGER, "dtype": np.float32}, trine.InputError, "dtype is <class 'numpy.floa"),
        ({"source": TAGGER, "dtype": "float16"}, trine.DeviceError, "float16 is not there yet"),
        ({"source": TAGGER, "device": 0}, trine.InputError, "device is 0, expected a name"),
        ({"source": TAGGER, "device": "gpu"}, trine.DeviceError, '"gpu"'),
        (
            {"source": TAGGER, "task": "poetry"},
            trine.InputError,
            "'poetry' is not known; known are",
        ),
        (
            {"source": TAGGER, "task": "classify"},
            trine.ModelError,
            "made for the task 'tag', not 'c",
        ),
        (
            {"source": TAGGER, "task": "generate"},
            trine.ModelError,
            "no model for the task 'generat",
        ),
    ],
)
def test_loading(arguments: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        trine.load(**arguments)


@pytest.mark.parametrize(
    ("inputs", "options", "text"),
    [
        (5, {}, "inputs: expected a list, got int"),
        (["a", None], {}, "input 1: expected a text, got NoneType"),
        ("a", {"batch_size": "4"}, "batch_size is '4', expected an integer of at least 1"),
        ("a", {"aggregation": "mean"}, "'mean' is not known; known are none, simple"),
    ],
)
def test_predicting(inputs: Any, options: dict[str, Any], text: str) -> None:
    with trine.load(TAGGER) as model, pytest.raises(trine.InputError, match=re.escape(text)):
        model.predict(inputs, **options)


def test_an_unknown_option_names_those_that_there_are(generator: Any) -> None:
    with pytest.raises(TypeError, match="'max_tokens'; there are max_new_tokens"):
        generator.generate("The capital", max_tokens=3)


def test_texts_in_place_of_vectors() -> None:
    with (
        trine.load(EXAMPLES / "tag", task="embed") as model,
        pytest.raises(trine.InputError, match="texts go through encode first"),
    ):
        model.similarity("a", "b")


def test_an_output_that_there_is_not() -> None:
    with (
        trine.load(EXAMPLES / "tag", task="embed") as model,
        pytest.raises(trine.InputError, match="known are sentence_embedding, token_embeddi"),
    ):
        model.encode("a", output_value="tokens")
