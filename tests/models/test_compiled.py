# SPDX-License-Identifier: Apache-2.0
"""Compiled files of every task: the folder's bits, one mapping for all processes, clear errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare import HERE
from safetensors import safe_open

import trine
from trine import _core, cli

EXAMPLES = HERE / "examples"
SEEDS = HERE.parent / "weights" / "compiled"
DTYPES = ("float32", "bfloat16", "int8", "int4")
FOLDERS = sorted(path.parent for path in HERE.glob("*/*/config.json"))
INPUTS: dict[str, list[Any]] = {
    "ask": [{"question": "Who plays the harp?", "context": "Ada Lovelace plays the harp."}],
    "choose": [("The team", ["was long.", "was funny."])],
    "classify": ["A great film.", "The cast was not funny!"],
    "entail": [("The team was long.", "This is about sports.")],
    "fill": ["Ada plays the <mask>."],
    "ner": ["Ada Lovelace lived in London."],
    "rank": [("harp", "Ada plays the harp.")],
    "tag": ["Ada Lovelace lives in Rome."],
}


def compiled(folder: Path, path: Path, dtype: str) -> Any:
    with trine.load(folder, dtype=dtype, device="cpu") as model:
        model.save(path)
    return trine.load(path)


def ids_for(model: Any) -> list[Any]:
    rows = [[5, 6, 7, 8, 9, 10], [4, 3, 2, 0, 0, 0]]
    return [rows] if isinstance(model, trine.Chooser) else rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("folder", FOLDERS, ids=[f"{p.parent.name}-{p.name}" for p in FOLDERS])
def test_every_output_has_the_bits_of_the_folder(folder: Path, dtype: str, tmp_path: Path) -> None:
    with (
        trine.load(folder, dtype=dtype, device="cpu") as model,
        compiled(folder, tmp_path / "m.trine", dtype) as mapped,
    ):
        assert type(mapped) is type(model)
        info, own = model.info(), mapped.info()
        for key in ("architecture", "task", "outputs", "dtype", "parameters", "weight_bytes"):
            assert own[key] == info[key]
        ids = ids_for(model)
        for names in [None, *([name] for name in own["outputs"])]:
            expected = model.forward(ids, outputs=names)
            for name, values in mapped.forward(ids, outputs=names).items():
                np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("name", INPUTS)
def test_every_task_has_the_results_of_the_folder(name: str, tmp_path: Path) -> None:
    with (
        trine.load(EXAMPLES / name) as model,
        compiled(EXAMPLES / name, tmp_path / "m.trine", "auto") as mapped,
    ):
        assert mapped.predict(INPUTS[name]) == model.predict(INPUTS[name])
        assert mapped.max_seq_length == model.max_seq_length
        assert mapped.config == model.config


def test_a_generator_writes_the_same_text(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "What is the capital of Norway?"}]
    with (
        trine.load(EXAMPLES / "chat") as model,
        compiled(EXAMPLES / "chat", tmp_path / "m.trine", "auto") as mapped,
    ):
        assert mapped.eos_token_ids == model.eos_token_ids
        assert mapped.chat(messages) == model.chat(messages)
        sampled = {"temperature": 0.8, "seed": 3, "max_new_tokens": 12}
        assert mapped.generate("The", **sampled) == model.generate("The", **sampled)


def test_sentence_transformers_settings_are_kept(tmp_path: Path) -> None:
    with trine.load("demo", dtype="bfloat16") as model:
        model.max_seq_length = 12
        model.save(tmp_path / "m.trine")
        with trine.load(tmp_path / "m.trine") as mapped:
            assert mapped.max_seq_length == 12
            assert mapped.prompts == model.prompts
            assert mapped.dimension == model.dimension
            assert mapped.similarity_fn_name == model.similarity_fn_name
            texts = ["A sentence.", "Another one, which is a good deal longer than twelve tokens."]
            np.testing.assert_array_equal(mapped.encode(texts), model.encode(texts))


def test_a_model_without_a_tokenizer_takes_ids(tmp_path: Path) -> None:
    folder = HERE / "llama" / "generate"
    assert not (folder / "tokenizer.json").exists()
    with compiled(folder, tmp_path / "m.trine", "float32") as mapped:
        assert mapped.tokenizer is None
        assert len(mapped.generate([1, 2, 3], max_new_tokens=4).tokens) == 4
        with pytest.raises(trine.ModelError, match="compiled without a tokenizer"):
            mapped.generate("text")


@pytest.mark.parametrize(
    ("dtype", "stored", "panels"),
    [("bfloat16", "BF16", {"panels_bf16"}), ("int8", "I8", {"panels_int8"})],
)
def test_the_file_is_a_safetensors_file_that_others_read(
    dtype: str, stored: str, panels: set[str], tmp_path: Path
) -> None:
    path = tmp_path / "m.trine"
    compiled(EXAMPLES / "tag", path, dtype).close()
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert metadata["trine.format"] == "2"
    assert metadata["trine.version"] == trine.__version__
    assert metadata["trine.task"] == "tag"
    assert metadata["trine.dtype"] == stored
    assert json.loads(metadata["config.json"])["architectures"] == ["MPNetForTokenClassification"]
    assert "model" in json.loads(metadata["tokenizer.json"])
    assert {node["op"] for node in json.loads(metadata["trine.graph"])["nodes"]} >= {"linear"}
    assert str(EXAMPLES) not in str(metadata)  # nobody's folders
    forms = {name.partition("/")[0] for name in shapes if not name.startswith("padding.")}
    assert forms == {"table", "dense", "bias", "panels"} | panels


PROGRAM = "import sys, trine\ntrine.load(sys.argv[1], dtype=sys.argv[3]).save(sys.argv[2])\n"


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("folder", ["heads/model", "deberta/model-v2", "llama/generate-granite"])
def test_the_instruction_set_changes_no_byte(folder: str, dtype: str, tmp_path: Path) -> None:
    """Without fused multiply-add (scalar) what is folded is rounded otherwise."""
    found = {}
    for isa in [isa for isa in _core.isas() if isa != "scalar"]:
        path = tmp_path / f"{isa}.trine"
        command = [sys.executable, "-c", PROGRAM, str(HERE / folder), str(path), dtype]
        subprocess.run(command, check=True, env=os.environ | {"TRINE_ISA": isa})
        found[isa] = path.read_bytes()
    assert len(set(found.values())) <= 1, list(found)


# Private memory that loading and running a file adds to a process, and what of the file's own
# mapping is private (written to, or read by nobody else) or shared.
MEASURE = """
import json, re, sys
from pathlib import Path
import trine

def kilobytes(name, text):
    return sum(int(n) for n in re.findall(name + r": +([0-9]+) kB", text))

def private():
    return kilobytes("Private_Dirty", Path("/proc/self/smaps_rollup").read_text())

def mapping(path):
    parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M)
    return "".join(part for part in parts if part.partition("\\n")[0].endswith(path))

ids = [[0, 7, 8, 9, 2]]
with trine.load(sys.argv[2], threads=2) as model:
    model.encode(ids)  # numpy and the code have what they need
before = private()
with trine.load(sys.argv[1], threads=2) as model:
    model.encode(ids)
    text = mapping(sys.argv[1])
    found = {name: kilobytes(name, text) for name in ("Rss", "Private_Dirty", "Shared_Clean")}
    info = model.info()
    print(json.dumps({"added": private() - before, **found, **info}))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells this")
def test_a_second_process_has_no_copy_of_the_weights(tmp_path: Path) -> None:
    """All that a process adds to the shared pages is what a run works in."""
    path = tmp_path / "m.trine"
    with compiled(trine_demo(), path, "bfloat16") as mapped:
        mapped.encode([[0, 7, 8, 9, 2]])  # the first process, with the file in use
        command = [sys.executable, "-c", MEASURE, str(path), str(SEEDS / "mpnet.trine")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["bytes_mapped"] == path.stat().st_size > 200 << 20
    assert found["Private_Dirty"] == 0
    assert found["Shared_Clean"] > 0.9 * found["Rss"] > 100 << 10, found
    # 5 tokens in rows of some 6000 floats, scratch of two threads, steps and nodes.
    assert found["bytes_allocated"] < 4 << 20
    assert found["added"] < 16 << 10, found


def trine_demo() -> Path:
    from trine import demo

    return demo.folder()


def test_load_refuses_what_the_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "m.trine"
    compiled(EXAMPLES / "tag", path, "float32").close()
    with pytest.raises(
        trine.InputError, match=r"compiled in float32; for bfloat16 compile .*again"
    ):
        trine.load(path, dtype="bfloat16")
    with pytest.raises(trine.ModelError, match="compiled for the task 'tag', not 'fill'"):
        trine.load(path, task="fill-mask")
    with pytest.raises(trine.DeviceError, match='no device "tpu"'):
        trine.load(path, device="tpu")
    with pytest.raises(trine.ModelError, match="no such file"):
        trine.load(tmp_path / "absent.trine")
    other = tmp_path / "weights.trine"
    other.write_bytes((EXAMPLES / "tag" / "model.safetensors").read_bytes())
    with pytest.raises(trine.ModelError, match=r"weights\.trine: .* no compiled model"):
        trine.load(other)


@pytest.mark.parametrize("seed", sorted(SEEDS.glob("*.trine")), ids=lambda path: path.stem)
def test_stored_files_of_this_format_still_load(seed: Path) -> None:
    """Files that an earlier commit wrote: a change that breaks them must raise the format."""
    with trine.load(seed) as model:
        for values in model.forward([[1, 2, 3]]).values():
            assert np.isfinite(values).all()


@pytest.mark.parametrize("seed", sorted(SEEDS.glob("*.trine")), ids=lambda path: path.stem)
def test_every_damaged_byte_of_the_metadata_is_found(seed: Path, tmp_path: Path) -> None:
    content = bytearray(seed.read_bytes())
    path = tmp_path / "m.trine"
    end = 8 + int.from_bytes(content[:8], "little")
    for at in range(0, end, 97):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 7
        path.write_bytes(changed)
        around = bytes(changed[max(0, at - 24) : at + 24])
        if not around.strip() or b"padding" in around:
            continue  # the space behind the header, or the name of a padding
        with pytest.raises(trine.ModelError, match=r"m\.trine"):
            trine.load(path)


def test_save_replaces_a_file_that_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "m.trine"
    with compiled(EXAMPLES / "tag", path, "float32") as first:
        text = INPUTS["tag"]
        expected = first.predict(text)
        with compiled(EXAMPLES / "classify", path, "float32") as second:
            assert isinstance(second, trine.Classifier)
            assert first.predict(text) == expected
            assert [p.name for p in tmp_path.iterdir()] == ["m.trine"]


def test_save_says_what_is_wrong(tmp_path: Path) -> None:
    with trine.load(EXAMPLES / "tag") as model:
        with pytest.raises(trine.InputError, match=r"must end with \.trine"):
            model.save(tmp_path / "m.bin")
        with pytest.raises(FileNotFoundError, match=r"m\.trine"):
            model.save(tmp_path / "absent" / "m.trine")
        model.save(str(tmp_path / "m.trine"))
    with pytest.raises(trine.InputError, match="closed"):
        model.save(tmp_path / "m.trine")


def test_the_command_compiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tag.trine"
    command = ["compile", str(EXAMPLES / "tag"), "-o", str(path), "--dtype", "bfloat16"]
    assert cli.main(command) == 0
    row = json.loads(capsys.readouterr().out)
    assert row == {
        "file": str(path),
        "bytes": path.stat().st_size,
        "task": "tag",
        "architecture": "MPNetForTokenClassification",
        "dtype": "bfloat16",
    }
    assert cli.main(["tag", "--model", str(path), "Ada Lovelace lives in Rome."]) == 0
    assert '"Ada Lovelace"' in capsys.readouterr().out
