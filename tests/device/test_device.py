# SPDX-License-Identifier: Apache-2.0
"""Whole models on GPUs: beside the CPU, alone and in batches, and when a GPU fails.

By default on emulated GPUs; ``pytest tests/device --device cuda`` (or ``metal``) on a real one.
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
from trine.batching import join_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FOLDERS = sorted(p.parent for p in GOLDEN.glob("*/config.json")) + sorted(
    p.parent for p in GOLDEN.glob("*/*/config.json") if "examples" not in p.parts
)
NAMES = [str(p.relative_to(GOLDEN)) for p in FOLDERS]
PREFIX = [4 + i % 50 for i in range(70)]
GENERATORS = [p for p in FOLDERS if p.name.startswith("generate")]
# Sums in another order, over two layers: as far as the CPU's own instruction sets are apart.
FLOAT32 = 2e-5
# Every value between layers is rounded to 8 bits (11) here, and linears' inputs alone on the CPU.
LIMITS = {"float32": FLOAT32, "bfloat16": 5e-2, "float16": 1e-2}
PREFIXES = {"cuda": "CUDA, ", "metal": "Metal: "}  # of what GPUs say


def on_cpu(dtype: str) -> Any:
    """The dtype that the CPU compares with."""
    return "float32" if dtype == "float16" else dtype


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


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_models_beside_the_cpu(device: Any, folder: Path, dtype: Any) -> None:
    if dtype == "float16" and device != "metal":
        with pytest.raises(trine.DeviceError, match="float16"):
            trine.load(folder, device=device, dtype=dtype)
        return
    with (
        trine.load(folder, device="cpu", dtype=on_cpu(dtype)) as cpu,
        trine.load(folder, device=device, dtype=dtype) as gpu,
    ):
        ids, mask = inputs(cpu)
        expected, got = cpu.forward(ids, mask), gpu.forward(ids, mask)
        assert got.keys() == expected.keys()
        for name, want in expected.items():
            assert np.abs(got[name] - want).max() <= LIMITS[dtype] * np.abs(want).max(), name
        for _ in range(2):  # on a GPU, recorded and replayed
            for name, again in gpu.forward(ids, mask).items():
                assert np.array_equal(again, got[name]), name
        for i in range(len(ids)):  # each alone
            length = int(mask[i].sum(-1).max())
            one = gpu.forward(ids[i : i + 1, ..., :length], mask[i : i + 1, ..., :length])
            for name, values in one.items():
                together = got[name][i][tuple(slice(n) for n in values.shape[1:])]
                assert np.array_equal(values[0], together), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("folder", GENERATORS, ids=[p.name for p in GENERATORS])
def test_generation(device: Any, folder: Path, dtype: Any) -> None:
    prompts = [[5, 6, 7, 8, 9], [10, 3], [4] * 70]
    with trine.load(folder, device=device, dtype=dtype) as gpu:
        together = [g.tokens for g in gpu.generate(prompts, max_new_tokens=12)]
        assert together == [gpu.generate(p, max_new_tokens=12).tokens for p in prompts]
        if dtype == "float32":
            with trine.load(folder, device="cpu", dtype=dtype) as cpu:
                assert together == [g.tokens for g in cpu.generate(prompts, max_new_tokens=12)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shared_prefix_of_more_than_a_page(device: Any, dtype: Any) -> None:
    """Its keys and values are computed once and copied: the tokens are those of each alone."""
    prompts = [[*PREFIX, 3], [*PREFIX, 9]]
    with trine.load(GOLDEN / "llama" / "generate", device=device, dtype=dtype) as gpu:
        together = [g.tokens for g in gpu.generate(prompts, max_new_tokens=12)]
        assert together == [gpu.generate(p, max_new_tokens=12).tokens for p in prompts]


def test_every_node_beside_the_reference(device: Any) -> None:
    from trine import models
    from trine.files import read_json

    chosen = devices.choose(device)
    for name in ("deberta/model-v2", "heads/model", "llama/model"):
        folder = GOLDEN / name
        store = _core.WeightStore([(folder / "model.safetensors", "")])
        config = read_json(folder / "config.json")
        graph = models.build(store, config, config["architectures"][0], [])
        assert isinstance(graph, nn.Graph)
        ids = np.arange(5, 35, dtype=np.int32)
        offsets = np.array([0, 11, 30], np.int32)
        for node in _core.compare(
            graph.core, ids, offsets, ["last_hidden_state"], 1, "float32", device, chosen.plugin
        ):
            limit = FLOAT32 * max(node["max_abs_reference"], 1e-3)
            assert node["max_abs_difference"] <= limit, (name, node)


def test_info_says_where(device: Any) -> None:
    with trine.load(GOLDEN / "sentence", device=device) as model:
        info = model.info()
        assert info["device"] == device
        assert info["hardware"]
        assert info["isa"].startswith({"cuda": "sm_", "metal": "apple"}[device])
        assert info["device_reason"] == "asked for"
        assert info["dtype"] == devices.choose(device).dtype("auto")
        before = info["bytes_allocated"]
        model.encode(["A sentence."] * 40)
        assert model.info()["bytes_allocated"] > before
    with trine.load(GOLDEN / "sentence") as model:
        where, reason = model.info()["device"], model.info()["device_reason"]
    if device == "metal":
        assert where == "cpu"
        assert reason == "auto; metal: not run on hardware yet; device='metal' takes it"
    else:
        assert where == device
        assert reason.startswith("auto: the first of ")


def test_bench_has_the_limit_that_it_is_told(device: Any) -> None:
    from trine.bench import bench, show

    with trine.load(GOLDEN / "sentence", device=device) as model:
        # The mixed case that comes behind takes an emulated GPU long.
        case, limited = (
            next(line for line in bench(model, [(1, 4)], rounds=2, **how) if "case" in line)
            for how in ({"profile": True}, {"limit": (1000.0, 100.0)})
        )
    assert case["case"] == limited["case"] == "1x4"
    assert case["gflops"] > 0
    assert "limit_share" not in case
    assert "% of the limit" not in show(case)
    assert 0 < limited["limit_share"] < 1
    assert "% of the limit (1000 GFLOP/s, 100 GB/s)" in show(limited)


def test_a_run_takes_more_tokens_than_on_the_cpu(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trine.tasks.base.TOKEN_BUDGET", 6)
    monkeypatch.setattr("trine.tasks.base.GPU_TOKEN_BUDGET", 12)
    tokens = join_ids([[5, 6, 7, 8]] * 5)
    runs = {}
    for where in ("cpu", device):
        with trine.load(GOLDEN / "sentence", device=where, dtype="float32") as model:
            runs[where] = [len(rows) for rows, *_ in model._runs(tokens, ["sentence_embedding"])]
    assert runs == {"cpu": [1] * 5, device: [3, 2]}


def test_tied_weights_are_there_once(device: Any) -> None:
    folder = GOLDEN / "llama" / "generate"
    with trine.load(folder, device=device, dtype="bfloat16") as model:
        assert model.config["tie_word_embeddings"]
        table = model.config["vocab_size"] * model.config["hidden_size"] * 2
        info = model.info()  # before a run: weights alone are there
        # Metal reads some where the file has them, though less than the table takes.
        least, most = {"cuda": (0, table / 2), "metal": (-table, 0)}[device]
        assert least <= info["bytes_allocated"] - info["weight_bytes"] < most


def test_threads(device: Any) -> None:
    with trine.load(GOLDEN / "sentence", device=device, dtype="float32") as model:
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


@pytest.mark.parametrize("number", ["9", "x", "-1", ""])
def test_no_such_gpu(device: str, number: str) -> None:
    wanted: Any = f"{device}:{number}"
    with pytest.raises(trine.DeviceError):
        trine.load(GOLDEN / "sentence", device=wanted)
    right: Any = device
    with trine.load(GOLDEN / "sentence", device=right) as model:  # nothing is left of the error
        model.encode("Text.")


PROGRAM = """
import json, sys
import trine
said = {}
def attempt(name, work):
    try:
        said[name] = work()
    except trine.DeviceError as error:
        said[name] = "DeviceError: " + str(error)
folder, device = sys.argv[1:]
attempt("load", lambda: trine.load(folder, device=device, dtype="float32").info()["device"])
attempt("auto", lambda: trine.load(folder).info()["device_reason"])
if said["load"] == device:
    def encode(texts):
        with trine.load(folder, device=device, dtype="float32") as model:
            return model.encode(texts).shape
    attempt("encode", lambda: encode("A sentence."))
    attempt("long", lambda: encode(["A sentence. " * 9] * 200))
    attempt("again", lambda: encode("A sentence."))
said["cpu"] = trine.load(folder, device="cpu").encode("A sentence.").shape
print(json.dumps(said))
"""


def with_failure(device: str, plan: str, **more: str) -> dict[str, Any]:
    environment = {**os.environ, "TRINE_SIMT_FAIL": plan, **more}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(GOLDEN / "sentence"), device],
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
def failing(is_emulated: bool) -> None:
    if not is_emulated:
        pytest.skip("a real GPU fails when it wants to, and its plugin is installed")


# What goes wrong on which device, and the advice.
UNUSABLE = [
    ("cuda", "cudaGetDeviceCount:35:1", "update it"),
    ("cuda", "cudaGetDeviceCount:100:1", "nvidia-smi"),
    ("cuda", "cudaGetDeviceProperties:209:1", "compute capability 7.5"),
    ("cuda", "cudaGetDeviceProperties:222:1", "update it"),
    ("cuda", "cudaMalloc:2:1", "memory is full"),
    ("cuda", "cudaMalloc:702:1", "start a new process"),
    ("metal", "devices:1:1", "there is no GPU"),
    ("metal", "family:1:1", "M1 or later"),
    ("metal", "version:1:1", "update macOS"),
    ("metal", "newCommandQueue:1:1", "no command queue"),
    ("metal", "newLibrary:3:1", "rows.metal doesn't compile"),
    ("metal", "newFunction:1:1", "this build has no kernel "),
    ("metal", "newPipeline:2:1", "can't run the kernel "),
    ("metal", "maxThreads:1:1", "threadgroups of 16 threads"),
    ("metal", "newBuffer:1:1", "no room for"),
]
LOOKING = ("cudaGetDeviceCount", "devices", "family", "version")


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(("device", "plan", "advice"), UNUSABLE, indirect=["device"])
def test_a_gpu_that_cannot_be_used(device: str, plan: str, advice: str) -> None:
    said = with_failure(device, plan)
    assert said["load"].startswith(f"DeviceError: {PREFIXES[device]}")
    assert advice in said["load"]
    if plan.startswith(LOOKING):
        assert said["auto"].startswith(f"auto; {device}: {PREFIXES[device]}")


@pytest.mark.usefixtures("failing")
def test_memory_that_runs_out_later(device: str) -> None:
    # Calls are counted over a process: the weights of several loads, then the runs' memory.
    plan, words, calls = {
        "cuda": ("cudaMalloc:2:{}", "memory is full", range(5, 160, 31)),
        "metal": ("newBuffer:1:{}", "no room for", (5, 12, 20, 40)),
    }[device]
    outcomes = [with_failure(device, plan.format(n)) for n in calls]
    failed = {name for said in outcomes for name, text in said.items() if words in str(text)}
    assert {"load", "encode"} <= failed


@pytest.mark.usefixtures("failing")
def test_nothing_is_allocated_for_what_ran_before(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"cuda": "cudaMalloc:2:1,cudaMallocHost:2:1", "metal": "newBuffer:1:1"}[device]
    with (
        trine.load(GOLDEN / "sentence", device=device) as model,
        trine.load(GOLDEN / "llama" / "generate", device=device) as generator,
    ):

        def work(count: int) -> tuple[list[float], list[list[int]]]:
            vectors = model.encode(["A sentence.", "Another one, which is longer."] * count)
            prompts = [[5, 6, 7], [10]] * count
            return vectors.tolist(), [
                g.tokens for g in generator.generate(prompts, max_new_tokens=8)
            ]

        before = work(1)
        monkeypatch.setenv("TRINE_SIMT_FAIL", plan)  # from now on
        assert work(1) == before
        with pytest.raises(trine.DeviceError):
            work(10)


@pytest.mark.usefixtures("failing")
def test_a_kernel_that_faults(device: str) -> None:
    plan, calls, words, steps = {
        "cuda": (
            "cudaStreamSynchronize:700:{}",
            range(3, 64, 12),
            "start a new process",
            ("load", "encode"),
        ),
        "metal": ("run:3:{}", range(1, 4), "please report this", ("encode", "long", "again")),
    }[device]
    failed = {}
    for count in calls:
        said = with_failure(device, plan.format(count))
        failed |= {k: v for k, v in said.items() if str(v).startswith("DeviceError")}
    assert set(steps) <= failed.keys()
    assert all(words in text for text in failed.values())


# One head of so many columns, with position tables or a causal mask, beside the CPU.
HEADS = """
import json, sys
import numpy as np
import trine
from trine import _core, devices, nn
folder, kind, columns, dtype = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
graph = nn.Graph(_core.WeightStore([(folder + "/model.safetensors", "")]))
def constant(rows):
    values = np.cos(np.arange(rows * columns))
    return nn.Value(graph, graph.core.add_constant(values, [rows, columns]))
x = nn.embedding((graph.input("input_ids"), constant(80)))
more = {"causal": True} if kind == "causal" else {"max_relative_positions": 8,
        "position_keys": constant(16), "position_queries": constant(16)}
graph.output("y", nn.attention(x, x, x, heads=1, scale=0.1, **more))
ids, offsets = np.arange(300, dtype=np.int32) % 80, np.array([0, 7, 300], np.int32)
def run(device):
    plugin = devices.choose(device).plugin
    model = graph.compile(device=device, dtype=dtype, threads=1, plugin=plugin)
    return model.run(ids, offsets, outputs=["y"])["y"]
try:
    print(json.dumps(float(np.abs(run("cuda") - run("cpu")).max())))
except trine.DeviceError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.usefixtures("failing", "device")
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "most"), [("disentangled", 64), ("causal", 128)], ids=["disentangled", "causal"]
)
def test_heads_that_a_gpu_has_no_memory_for(kind: str, most: int, dtype: str) -> None:
    """Of sm_75's 64 KiB of shared memory: what fits runs, what doesn't is refused at load."""
    for columns, shared in ((most, 65536), (most + 16, 65536), (most + 16, 232448)):
        done = subprocess.run(
            [sys.executable, "-c", HEADS, str(GOLDEN / "sentence"), kind, str(columns), dtype],
            capture_output=True,
            text=True,
            env={**os.environ, "TRINE_SIMT_SHARED": str(shared)},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        if columns > most and shared == 65536:
            kept = "F32" if dtype == "float32" else "BF16"
            assert f"heads of {columns} columns in {kept} take more shared memory than" in said
            assert "65536 bytes that sm_90 has for a block" in said
        else:
            assert said < LIMITS[dtype]


def test_heads_that_are_too_wide(device: str) -> None:
    graph = nn.Graph(_core.WeightStore([(str(GOLDEN / "sentence" / "model.safetensors"), "")]))
    table = nn.Value(graph, graph.core.add_constant(np.zeros(80 * 272), [80, 272]))
    x = nn.embedding((graph.input("input_ids"), table))
    graph.output("y", nn.attention(x, x, x, heads=1, scale=0.1))
    plugin = devices.choose(device).plugin
    model = graph.compile(device=device, dtype="float32", threads=1, plugin=plugin)
    with pytest.raises(trine.DeviceError, match=r"heads of 272 columns; .* 256; use device="):
        model.run(np.arange(4, dtype=np.int32), np.array([0, 4], np.int32), outputs=["y"])


@pytest.mark.usefixtures("failing")
def test_no_plugin_is_installed(device: str, tmp_path: Path) -> None:
    said = with_failure(device, "", TRINE_PLUGIN_PATH=str(tmp_path))
    assert f"no plugin libtrine_{device}" in said["load"]
    assert said["auto"] == "auto; no plugin of a GPU is there"


@pytest.mark.parametrize("text", [b"", b"not a library"])
def test_a_plugin_that_is_none(device: str, tmp_path: Path, text: bytes) -> None:
    (tmp_path / f"libtrine_{device}.so").write_bytes(text)
    said = with_failure(device, "", TRINE_PLUGIN_PATH=str(tmp_path))
    assert said["load"].startswith("DeviceError: ")
    assert "does not load" in said["load"]
    assert "does not load" in said["auto"]
