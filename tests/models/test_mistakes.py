# SPDX-License-Identifier: Apache-2.0
"""What a user reads after an obvious mistake: the argument, its value, and what was expected."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trine

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EXAMPLES = GOLDEN / "examples"
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
        ({"source": ""}, trine.InputError, "source is empty, expected a path"),
        ({"source": TAGGER, "threads": 2**31}, trine.InputError, "threads is 2147483648, expec"),
        ({"source": TAGGER, "threads": True}, trine.InputError, "threads is True, expected an"),
        ({"source": TAGGER, "task": ["embed"]}, trine.InputError, "task is ['embed'], expected a"),
        ({"source": TAGGER, "keep": "x"}, trine.InputError, "keep: expected a list of texts"),
        ({"source": TAGGER, "revision": 3}, trine.InputError, "revision is 3, expected a branch"),
        ({"source": TAGGER, "threads": "2"}, trine.InputError, "threads is '2', expected an int"),
        ({"source": TAGGER, "dtype": np.float32}, trine.InputError, "dtype is <class 'numpy.floa"),
        ({"source": TAGGER, "dtype": "float16"}, trine.DeviceError, "float16 is not there yet"),
        ({"source": TAGGER, "device": 0}, trine.InputError, "device is 0, expected a name"),
        ({"source": TAGGER, "device": "a\ud800"}, trine.InputError, "device has half of a surr"),
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


@pytest.mark.parametrize("path", [None, 3, b"x.trine"])
def test_saving_to_what_is_no_path(path: Any) -> None:
    with trine.load(TAGGER) as model, pytest.raises(trine.InputError, match="path: expected a pa"):
        model.save(path)


def test_threads_of_numpy() -> None:
    with trine.load(TAGGER, threads=np.int64(1)) as model:
        assert model.info()["threads"] == 1


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
def test_models_are_loaded_again_not_copied(act: Any) -> None:
    """A copy would share the core: closing it would close the original."""
    with trine.load(TAGGER) as model:
        with pytest.raises(TypeError, match="a Tagger can neither be copied nor pickled: load it"):
            act(model)
        assert model.predict("Ada Lovelace")


def test_ids_beyond_what_the_model_takes() -> None:
    with trine.load(TAGGER, task="embed") as model:
        for ids in ([1] * 43, [5] * 40 + [1], [5] * 41):
            wanted = f"^input 0 has {len(ids)} tokens, the model takes 40$"
            with pytest.raises(trine.InputError, match=wanted):
                model.encode([ids])
        assert model.encode([[1] * 40]).shape == (1, model.dimension)


def test_masks_without_a_tokenizer() -> None:
    with trine.load(GOLDEN / "deberta" / "masked-lm") as model:
        assert model.tokenizer is None
        found = model.predict([[1, 5, 2]], mask_token_id=5, top_k=2)
        assert [len(candidates) for candidates in found[0]] == [2]
        assert found[0][0][0]["text"] is None
        with pytest.raises(trine.InputError, match="neither a tokenizer nor config"):
            model.predict([[1, 5, 2]])


def test_zero_shot_of_no_text() -> None:
    with trine.load(EXAMPLES / "entail") as model:
        assert model.zero_shot([], ["a"]) == model.zero_shot([], ["a", "b"]) == []


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
