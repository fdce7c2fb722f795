# SPDX-License-Identifier: Apache-2.0
"""Whole models with ``device="cuda"``: beside the CPU, alone and in batches, and when it fails.

By default on an emulated GPU; ``pytest tests/cuda/test_device.py --device cuda`` on a real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import trine
from trine import _core, devices, nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("plugin")
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FOLDERS = sorted(p.parent for p in GOLDEN.glob("*/config.json")) + sorted(
    p.parent for p in GOLDEN.glob("*/*/config.json") if "examples" not in p.parts
)
NAMES = [str(p.relative_to(GOLDEN)) for p in FOLDERS]
PREFIX = [4 + i % 50 for i in range(70)]
GENERATORS = [p for p in FOLDERS if p.name.startswith("generate")]
# Sums in another order, over two layers: as far as the CPU's own instruction sets are apart.
FLOAT32 = 2e-5
# Every value between layers is rounded to 8 bits here, and linears' inputs alone on the CPU.
BFLOAT16 = 5e-2


def lengths_of(model: Any) -> list[int]:
    most = min(40, (model.max_seq_length or 40) - 2)
    return [most, 5, 1, most // 2]


def inputs(model: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = lengths_of(model)
    rng = np.random.default_rng(1)
    ids = rng.integers(5, model.config["vocab_size"], (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    if type(model).__name__ == "Chooser":  # two choices each
        return ids.reshape(2, 2, -1), mask.reshape(2, 2, -1)
    return ids, mask


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_models_beside_the_cpu(folder: Path, dtype: Any) -> None:
    with (
        trine.load(folder, device="cpu", dtype=dtype) as cpu,
        trine.load(folder, device="cuda", dtype=dtype) as cuda,
    ):
        ids, mask = inputs(cpu)
        expected, got = cpu.forward(ids, mask), cuda.forward(ids, mask)
        assert got.keys() == expected.keys()
        limit = FLOAT32 if dtype == "float32" else BFLOAT16
        for name, want in expected.items():
            assert np.abs(got[name] - want).max() <= limit * np.abs(want).max(), name
        for _ in range(2):  # on a GPU, recorded and replayed
            for name, again in cuda.forward(ids, mask).items():
                assert np.array_equal(again, got[name]), name
        for i in range(len(ids)):  # each alone
            length = int(mask[i].sum(-1).max())
            one = cuda.forward(ids[i : i + 1, ..., :length], mask[i : i + 1, ..., :length])
            for name, values in one.items():
                together = got[name][i][tuple(slice(n) for n in values.shape[1:])]
                assert np.array_equal(values[0], together), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("folder", GENERATORS, ids=[p.name for p in GENERATORS])
def test_generation(folder: Path, dtype: Any) -> None:
    prompts = [[5, 6, 7, 8, 9], [10, 3], [4] * 70]
    with trine.load(folder, device="cuda", dtype=dtype) as cuda:
        together = [g.tokens for g in cuda.generate(prompts, max_new_tokens=12)]
        assert together == [cuda.generate(p, max_new_tokens=12).tokens for p in prompts]
        if dtype == "float32":
            with trine.load(folder, device="cpu", dtype=dtype) as cpu:
                assert together == [g.tokens for g in cpu.generate(prompts, max_new_tokens=12)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shared_prefix_of_more_than_a_page(dtype: Any) -> None:
    """Its keys and values are computed once and copied: the tokens are those of each alone."""
    prompts = [[*PREFIX, 3], [*PREFIX, 9]]
    with trine.load(GOLDEN / "llama" / "generate", device="cuda", dtype=dtype) as cuda:
        together = [g.tokens for g in cuda.generate(prompts, max_new_tokens=12)]
        assert together == [cuda.generate(p, max_new_tokens=12).tokens for p in prompts]


def test_every_node_beside_the_reference() -> None:
    from trine import models
    from trine.files import read_json

    chosen = devices.choose("cuda")
    for name in ("deberta/model-v2", "heads/model", "llama/model"):
        folder = GOLDEN / name
        store = _core.WeightStore([(folder / "model.safetensors", "")])
        config = read_json(folder / "config.json")
        graph = models.build(store, config, config["architectures"][0], [])
        assert isinstance(graph, nn.Graph)
        ids = np.arange(5, 35, dtype=np.int32)
        offsets = np.array([0, 11, 30], np.int32)
        for node in _core.compare(
            graph.core, ids, offsets, ["last_hidden_state"], 1, "float32", "cuda", chosen.plugin
        ):
            limit = FLOAT32 * max(node["max_abs_reference"], 1e-3)
            assert node["max_abs_difference"] <= limit, (name, node)


def test_info_says_where() -> None:
    with trine.load(GOLDEN / "sentence", device="cuda") as model:
        info = model.info()
        assert info["device"] == "cuda"
        assert info["hardware"]
        assert info["isa"].startswith("sm_")
        assert info["device_reason"] == "asked for"
        assert info["dtype"] == devices.choose("cuda").dtype("auto")
        before = info["bytes_allocated"]
        model.encode(["A sentence."] * 40)
        assert model.info()["bytes_allocated"] > before
    with trine.load(GOLDEN / "sentence") as model:
        assert model.info()["device"] == "cuda"
        assert model.info()["device_reason"].startswith("auto: the first of ")


def test_bench_says_nothing_of_the_cpu_s_limit() -> None:
    from trine.bench import bench, show

    with trine.load(GOLDEN / "sentence", device="cuda") as model:
        lines = list(bench(model, [(1, 4)], rounds=2, profile=True))
    case = next(line for line in lines if line.get("case") == "1x4")
    assert case["gflops"] > 0
    assert "limit_share" not in case
    assert "% of the limit" not in show(case)


def test_tied_weights_are_there_once() -> None:
    folder = GOLDEN / "llama" / "generate"
    with trine.load(folder, device="cuda", dtype="bfloat16") as model:
        assert model.config["tie_word_embeddings"]
        table = model.config["vocab_size"] * model.config["hidden_size"] * 2
        info = model.info()  # before a run: weights alone are there
        assert info["weight_bytes"] <= info["bytes_allocated"] < info["weight_bytes"] + table / 2


def test_threads() -> None:
    with trine.load(GOLDEN / "sentence", device="cuda", dtype="float32") as model:
        texts = [f"Text number {i}." * (1 + i % 3) for i in range(8)]
        alone = [model.encode(t) for t in texts]
        found: dict[int, NDArray[np.float32]] = {}
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: model.encode(texts[i])}))
            for i in range(len(texts))
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert all(np.array_equal(found[i], alone[i]) for i in range(len(texts)))


def test_a_compiled_file_is_for_the_cpu(tmp_path: Path) -> None:
    with trine.load(GOLDEN / "sentence", device="cpu") as model:
        model.save(tmp_path / "m.trine")
    with pytest.raises(trine.DeviceError, match="compiled for cpu"):
        trine.load(tmp_path / "m.trine", device="cuda")
    with (
        trine.load(GOLDEN / "sentence", device="cuda") as model,
        pytest.raises(trine.DeviceError, match="cuda"),
    ):
        model.save(tmp_path / "n.trine")


@pytest.mark.parametrize("device", ["cuda:9", "cuda:x", "cuda:-1", "cuda:"])
def test_no_such_gpu(device: Any) -> None:
    with pytest.raises(trine.DeviceError):
        trine.load(GOLDEN / "sentence", device=device)


PROGRAM = """
import json, sys
import trine
said = {}
def attempt(name, work):
    try:
        said[name] = work()
    except trine.DeviceError as error:
        said[name] = "DeviceError: " + str(error)
folder = sys.argv[1]
attempt("load", lambda: trine.load(folder, device="cuda", dtype="float32").info()["device"])
attempt("auto", lambda: trine.load(folder).info()["device_reason"])
if said["load"] == "cuda":
    def encode(texts):
        with trine.load(folder, device="cuda", dtype="float32") as model:
            return model.encode(texts).shape
    attempt("encode", lambda: encode("A sentence."))
    attempt("long", lambda: encode(["A sentence. " * 9] * 200))
    attempt("again", lambda: encode("A sentence."))
said["cpu"] = trine.load(folder, device="cpu").encode("A sentence.").shape
print(json.dumps(said))
"""


def with_failure(plan: str, **more: str) -> dict[str, Any]:
    environment = {**os.environ, "TRINE_SIMT_FAIL": plan, **more}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(GOLDEN / "sentence")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["cpu"] == [32]  # whatever happened, the CPU works
    return said


@pytest.fixture
def failing(emulated: bool) -> None:
    if not emulated:
        pytest.skip("a real GPU fails when it wants to, and its plugin is installed")


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("plan", "advice"),
    [
        ("cudaGetDeviceCount:35:1", "update it"),
        ("cudaGetDeviceCount:100:1", "nvidia-smi"),
        ("cudaGetDeviceProperties:209:1", "compute capability 7.5"),
        ("cudaMalloc:2:1", "memory is full"),
    ],
)
def test_a_gpu_that_cannot_be_used(plan: str, advice: str) -> None:
    said = with_failure(plan)
    assert said["load"].startswith("DeviceError: CUDA, ")
    assert advice in said["load"]
    if plan.startswith("cudaGetDeviceCount"):
        assert said["auto"].startswith("auto; cuda: CUDA, looking for a GPU")


@pytest.mark.usefixtures("failing")
def test_memory_that_runs_out_later() -> None:
    # Calls are counted over a process: the weights of several loads, then the runs' memory.
    outcomes = [with_failure(f"cudaMalloc:2:{n}") for n in range(5, 160, 31)]
    failed = {
        name for said in outcomes for name, text in said.items() if "memory is full" in str(text)
    }
    assert {"load", "encode"} <= failed


@pytest.mark.usefixtures("failing")
def test_a_kernel_that_faults() -> None:
    failed = {}
    for count in range(3, 64, 12):
        said = with_failure(f"cudaStreamSynchronize:700:{count}")
        failed |= {k: v for k, v in said.items() if str(v).startswith("DeviceError")}
    assert {"load", "encode"} <= failed.keys()
    assert all("start a new process" in text for text in failed.values())


@pytest.mark.usefixtures("failing")
def test_no_plugin_is_installed(tmp_path: Path) -> None:
    said = with_failure("", TRINE_PLUGIN_PATH=str(tmp_path))
    assert "no plugin libtrine_cuda" in said["load"]
    assert said["auto"] == "auto; no plugin of a GPU is there"


@pytest.mark.parametrize("text", [b"", b"not a library"])
def test_a_plugin_that_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "libtrine_cuda.so").write_bytes(text)
    said = with_failure("", TRINE_PLUGIN_PATH=str(tmp_path))
    assert said["load"].startswith("DeviceError: ")
    assert "does not load" in said["load"]
    assert "does not load" in said["auto"]
