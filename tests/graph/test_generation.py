# SPDX-License-Identifier: Apache-2.0
"""Sessions from Python: a tiny random Llama, with caches and without them."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from trine import InputError, _core, nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VOCAB, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, LAYERS = 61, 40, 4, 2, 16, 48, 2


def decoder_layer(x: nn.Value, table: nn.Value, w: nn.Scope, layer: int) -> nn.Value:
    h = nn.rms_norm(x, w["input_layernorm"], eps=1e-6)
    q, k, v = (nn.linear(h, w[f"{name}_proj"], bias=False) for name in "qkv")
    a = nn.attention(
        nn.rope(q, table, heads=HEADS),
        nn.rope(k, table, heads=KV_HEADS),
        v,
        heads=HEADS,
        kv_heads=KV_HEADS,
        scale=1 / math.sqrt(HEAD_DIM),
        causal=True,
        cache=layer,
    )
    x = x + nn.linear(a, w["o_proj"], bias=False)
    h = nn.rms_norm(x, w["post_attention_layernorm"], eps=1e-6)
    gate, up = (nn.linear(h, w[f"{name}_proj"], bias=False) for name in ("gate", "up"))
    return x + nn.linear(nn.gated(gate, up, "silu"), w["down_proj"], bias=False)


def build(store: _core.WeightStore, *, spoilt: bool = False) -> nn.Graph:
    g = nn.Graph(store)
    ids, w = g.input("input_ids"), g.scope()
    inv_freq = [10000.0 ** (-c / (HEAD_DIM // 2)) for c in range(HEAD_DIM // 2)]
    table = nn.rotary(ids, inv_freq)
    x = nn.embedding((ids, w.weight("embed.weight")))
    for layer in range(LAYERS):
        x = decoder_layer(x, table, w["layers"][layer], layer)
    x = nn.rms_norm(x, w["norm"], eps=1e-6)
    if spoilt:
        x = nn.scale(nn.scale(nn.scale(x, 3e38), 3e38), 3e38)
    g.output("logits", nn.linear(x, w["embed"], bias=False))
    g.output("next_logits", nn.linear(nn.pool(x, "lasttoken"), w["embed"], bias=False))
    return g


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> _core.WeightStore:
    random = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (VOCAB, HIDDEN), "norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"layers.{i}.{name}.weight"] = (HIDDEN,)
        for name, out, inner in (
            ("q", HEADS * HEAD_DIM, HIDDEN),
            ("k", KV_HEADS * HEAD_DIM, HIDDEN),
            ("v", KV_HEADS * HEAD_DIM, HIDDEN),
            ("o", HIDDEN, HEADS * HEAD_DIM),
            ("gate", INNER, HIDDEN),
            ("up", INNER, HIDDEN),
            ("down", HIDDEN, INNER),
        ):
            shapes[f"layers.{i}.{name}_proj.weight"] = (out, inner)
    path: Path = tmp_path_factory.mktemp("llama") / "model.safetensors"
    save_file({n: random.uniform(-0.5, 0.5, s).astype(np.float32) for n, s in shapes.items()}, path)
    return _core.WeightStore([(path, "")])


@pytest.fixture(params=[1, 2])
def model(store: _core.WeightStore, request: pytest.FixtureRequest) -> _core.Model:
    return build(store).compile(threads=request.param)


def prompt(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, length, dtype=np.int32)


def greedy(model: _core.Model, ids: np.ndarray, count: int) -> list[int]:
    """Runs the whole sequence again for each token."""
    for _ in range(count):
        offsets = np.array([0, len(ids)], np.int32)
        logits = model.run(ids, offsets, outputs=["next_logits"])["next_logits"]
        ids = np.append(ids, np.int32(logits[0].argmax()))
    return [int(i) for i in ids]


def finish(session: _core.Session) -> list[_core.GeneratedToken]:
    tokens = []
    while session.active:
        tokens += session.step()
    return tokens


def test_every_node_agrees_with_ref(store: _core.WeightStore) -> None:
    ids, offsets = prompt(40), np.array([0, 1, 1, 33, 40], np.int32)
    for node in _core.compare(build(store).core, ids, offsets, ["logits", "next_logits"], 2):
        assert node["max_abs_difference"] <= 1e-4 * (1 + node["max_abs_reference"]), node


@pytest.mark.parametrize("prefill", [1, 7, 512])
def test_same_tokens_as_without_a_cache(model: _core.Model, prefill: int) -> None:
    session = _core.Session(model, capacity=64, prefill_tokens=prefill)
    sequences = [
        session.add(prompt(n, n), max_new_tokens=m) for n, m in ((1, 20), (30, 9), (12, 1))
    ]
    finish(session)
    for sequence, (n, m) in zip(sequences, ((1, 20), (30, 9), (12, 1)), strict=True):
        assert session.tokens(sequence) == greedy(model, prompt(n, n), m)


def test_draws_do_not_depend_on_company(model: _core.Model) -> None:
    def run(others: int, seed: int) -> list[int]:
        session = _core.Session(model, capacity=64, prefill_tokens=5)
        for i in range(others):
            session.add(prompt(3 + i, i), max_new_tokens=7, temperature=1.0, seed=99)
        mine = session.add(
            prompt(8), max_new_tokens=20, temperature=1.3, top_k=30, top_p=0.95, seed=seed
        )
        finish(session)
        return session.tokens(mine)

    assert run(0, 4) == run(1, 4) == run(6, 4)
    assert run(0, 4) != run(0, 5)


def test_end_tokens_and_min_new_tokens(model: _core.Model) -> None:
    want = greedy(model, prompt(6), 10)
    end = want[9]  # the fourth one at the latest
    first = want.index(end, 6) - 6
    session = _core.Session(model, capacity=64)
    session.add(prompt(6), max_new_tokens=10, end_tokens=[end])
    tokens = finish(session)
    assert [t["token"] for t in tokens] == want[6 : 7 + first]
    assert [t["finish"] for t in tokens] == [None] * first + ["stop"]
    late = session.add(prompt(6), max_new_tokens=8, end_tokens=[end], min_new_tokens=8)
    tokens = finish(session)
    assert end not in session.tokens(late)[6:]
    assert tokens[-1]["finish"] == "length"


def test_logprobs_are_the_models_own(model: _core.Model) -> None:
    session = _core.Session(model, capacity=64)
    session.add(prompt(6), max_new_tokens=1, logprobs=3, repetition_penalty=1.5)
    (token,) = session.step()
    ids = prompt(6)
    logits = model.run(ids, np.array([0, 6], np.int32), outputs=["next_logits"])["next_logits"][0]
    exact = logits.astype(np.float64)
    exact -= exact.max()
    exact -= np.log(np.exp(exact).sum())
    assert [i for i, _ in token["top"]] == list(np.argsort(-exact)[:3])
    np.testing.assert_allclose([p for _, p in token["top"]], np.sort(exact)[::-1][:3], atol=1e-6)
    np.testing.assert_allclose(token["logprob"], exact[token["token"]], atol=1e-6)


def test_prefix_removal_and_info(model: _core.Model) -> None:
    session = _core.Session(model, capacity=64)
    first = session.add(prompt(30), max_new_tokens=4)
    finish(session)
    second = session.add(prompt(30), max_new_tokens=8, prefix=first)
    info = session.info()
    assert (info["sequences"], info["active"], info["tokens"]) == (2, 1, 33 + 29)
    per_token = LAYERS * KV_HEADS * 2 * HEAD_DIM * 4
    assert info["cache_bytes"] == (48 + 48) * per_token
    session.remove(first)
    finish(session)
    assert session.tokens(second) == greedy(model, prompt(30), 8)
    with pytest.raises(InputError, match="there is no sequence 0"):
        session.tokens(first)


def test_refused(model: _core.Model) -> None:
    with pytest.raises(InputError, match="no row of logits"):
        _core.Session(model, capacity=8, output="logits")
    session = _core.Session(model, capacity=8)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"max_new_tokens": 6}, "exceed the session's capacity of 8"),
        ({"max_new_tokens": 0}, "max_new_tokens >= 1"),
        ({"max_new_tokens": 1, "temperature": -1}, "temperature must be 0 or more"),
        ({"max_new_tokens": 1, "top_p": 0}, "top_p must be above 0"),
        ({"max_new_tokens": 1, "prefix": 3}, "there is no sequence 3"),
    ]
    for options, message in bad:
        with pytest.raises(InputError, match=message):
            session.add(prompt(3), **options)
    assert session.step() == []
    model.close()
    with pytest.raises(InputError, match="the model is closed"):
        _core.Session(model, capacity=8)


def test_logits_that_are_no_numbers_end_a_sequence(store: _core.WeightStore) -> None:
    session = _core.Session(build(store, spoilt=True).compile(threads=1), capacity=8)
    session.add(prompt(3), max_new_tokens=4)
    (token,) = session.step()
    assert token["finish"] == "nan"
    assert session.why_not_finite() == "every weight is finite, so sums overflow"
    assert session.active == 0


def test_threads_share_a_session(model: _core.Model) -> None:
    session = _core.Session(model, capacity=64)
    wanted = [greedy(model, prompt(5, i), 12) for i in range(4)]
    got: dict[int, list[int]] = {}

    def work(i: int) -> Callable[[], None]:
        def run() -> None:
            mine = session.add(prompt(5, i), max_new_tokens=12)
            while len(session.tokens(mine)) < 17:
                session.step()
            got[i] = session.tokens(mine)
            session.remove(mine)

        return run

    threads = [threading.Thread(target=work(i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i] for i in range(4)] == wanted
