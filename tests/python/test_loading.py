# SPDX-License-Identifier: Apache-2.0
"""From a name to a folder to an architecture; the core is not needed to be wrong about those."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeCore, write_tokenizer
from huggingface_hub.utils import filter_repo_objects

import trine
from trine import InputError, ModelError, _core, hub, models, sources

KNOWN: Any = {
    name: SimpleNamespace(family=family, task=task)
    for name, family, task in [
        ("MPNetModel", "mpnet", "embed"),
        ("MPNetForMaskedLM", "mpnet", "fill"),
        ("MPNetForTokenClassification", "mpnet", "tag"),
        ("OtherModel", "other", "embed"),
    ]
}
CONFIG = {"architectures": ["MPNetModel"], "model_type": "mpnet"}


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that is complete, but for what the weights file holds."""
    folder = write_tokenizer(tmp_path / "model")
    return write(folder, **{"config.json": CONFIG, "model.safetensors": ""})


class FakeGraph:
    """Records what it was built and compiled from."""

    def __init__(self, *built: Any) -> None:
        self.built = built
        self.notes: list[str] = []

    def compile(self, **options: Any) -> Any:
        core = FakeCore({"MPNetModel": "embed", "MPNetForMaskedLM": "fill"}[self.built[2]])
        core.built, core.options = self.built, options  # type: ignore[attr-defined]
        return core


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the core's part of loading."""
    monkeypatch.setattr(sources, "WeightStore", list)
    monkeypatch.setattr(models, "build", FakeGraph)


# Architectures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "task", "modules", "expected"),
    [
        ({"architectures": ["MPNetForMaskedLM"]}, None, False, "MPNetForMaskedLM"),
        ({"architectures": ["MPNetForMaskedLM"]}, None, True, "MPNetModel"),
        ({"architectures": ["MPNetForMaskedLM"]}, "embed", False, "MPNetModel"),
        ({"architectures": ["MPNetModel"]}, "tag", True, "MPNetForTokenClassification"),
        ({"architectures": ["Unknown", "OtherModel"]}, None, False, "OtherModel"),
        ({"model_type": "other"}, None, False, "OtherModel"),
        (
            {"architectures": ["MPNetForPreTraining"], "model_type": "mpnet"},
            None,
            True,
            "MPNetModel",
        ),
    ],
)
def test_architecture(
    config: dict[str, Any], task: str | None, expected: str, *, modules: bool
) -> None:
    found, _ = sources.choose_architecture(
        config, Path("config.json"), task, modules=modules, known=KNOWN
    )
    assert found == expected


@pytest.mark.parametrize(
    ("config", "task", "complaint"),
    [
        (
            {"architectures": ["NoSuch"], "model_type": "no-such"},
            None,
            "NoSuch.*no-such.*known are",
        ),
        ({"architectures": ["NoSuch"], "model_type": "mpnet"}, None, "NoSuch"),
        ({}, None, "model_type is None"),
        ({"architectures": "MPNetModel"}, None, "architectures is 'MPNetModel', expected list"),
        ({"architectures": ["OtherModel"]}, "tag", "'other' has no model for the task 'tag'"),
    ],
)
def test_no_architecture(config: dict[str, Any], task: str | None, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as caught:
        sources.choose_architecture(config, Path("x/config.json"), task, modules=False, known=KNOWN)
    assert "config.json" in str(caught.value)


@pytest.mark.usefixtures("fake")
def test_keep(checkpoint: Path) -> None:
    model = trine.load(checkpoint, dtype="int8", keep=["*.dense.weight"])
    assert model._core.built[-1] == ["*.dense.weight"]
    with pytest.raises(InputError, match="keep is for int8 and int4; the dtype is float32"):
        trine.load(checkpoint, dtype="float32", keep=[])


# Folders ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
def test_bare_encoder(checkpoint: Path) -> None:
    model = trine.load(checkpoint, dtype="bfloat16", threads=3)
    assert type(model) is trine.Embedder
    store, config, name, modules, keep = model._core.built
    assert store == [(checkpoint / "model.safetensors", "")]
    assert (config, name, keep) == (CONFIG, "MPNetModel", ())
    assert modules == [{"type": "pooling", "modes": ["mean"], "include_prompt": True}]
    options = {"device": "cpu", "dtype": "bfloat16", "threads": 3, "plugin": ""}
    assert model._core.options == options
    assert trine.load(checkpoint)._core.options["dtype"] == _core.default_dtype("cpu")
    assert model.config == CONFIG
    assert model.info()["source"] == str(checkpoint)
    assert model.encode("the river").shape == (12,)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("task", ["fill", "fill-mask"])
def test_task_by_name(checkpoint: Path, task: str) -> None:
    model = trine.load(str(checkpoint), task=task)
    assert type(model) is trine.Filler
    assert not model._core.built[3]  # the pooling is the embedder's


@pytest.mark.usefixtures("fake")
def test_modules_bring_their_weights(checkpoint: Path) -> None:
    kind = "sentence_transformers.models."
    listing = [
        {"path": "0_Transformer", "type": kind + "Transformer"},
        {"path": "1_Pooling", "type": kind + "Pooling"},
        {"path": "2_Dense", "type": kind + "Dense"},
    ]
    root = write(
        checkpoint.parent / "root",
        **{
            "modules.json": listing,
            "1_Pooling__config.json": {"pooling_mode": "cls"},
            "2_Dense__config.json": {"bias": True},
            "2_Dense__model.safetensors": "",
        },
    )
    checkpoint.rename(root / "0_Transformer")
    model = trine.load(root)
    assert model._core.built[0] == [
        (root / "0_Transformer" / "model.safetensors", ""),
        (root / "2_Dense" / "model.safetensors", "2_Dense."),
    ]
    assert model.tokenizer is not None
    dense = root / "2_Dense" / "model.safetensors"
    torch_file = dense.rename(dense.with_name("pytorch_model.bin"))
    assert trine.load(root)._core.built[0][1] == (torch_file, "2_Dense.")
    torch_file.rename(dense.with_name("tf_model.h5"))
    with pytest.raises(ModelError, match=r"2_Dense: no model\.safetensors or pytorch_model\.bin; "):
        trine.load(root)


@pytest.mark.usefixtures("fake")
def test_weights_by_their_file(checkpoint: Path) -> None:
    other = checkpoint / "other.safetensors"
    other.touch()
    assert trine.load(other)._core.built[0] == [(other, "")]
    (checkpoint / "model.safetensors").unlink()
    index = checkpoint / "model.safetensors.index.json"
    index.write_text("{}")
    assert trine.load(checkpoint)._core.built[0] == [(index, "")]
    assert trine.load(index)._core.built[0] == [(index, "")]


@pytest.mark.usefixtures("fake")
def test_weights_of_torch(checkpoint: Path) -> None:
    names = ["pytorch_model.bin.index.json", "pytorch_model.bin", "model.safetensors.index.json"]
    (checkpoint / "model.safetensors").unlink()
    for name in names:  # each goes before the one that was there
        (checkpoint / name).write_text("{}")
        assert trine.load(checkpoint)._core.built[0] == [(checkpoint / name, "")]
    for name in [*names, "pytorch_model.generator.bin", "model.pth", "model.pt"]:
        (checkpoint / name).touch()
        assert trine.load(checkpoint / name)._core.built[0] == [(checkpoint / name, "")]
    (checkpoint / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        trine.load(checkpoint / "model.pth")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "no config.json; there is nothing like it"),
        ({"model.gguf": ""}, "no config.json; there is model.gguf"),
        ({"config.json": "{", "model.safetensors": ""}, "config.json: not valid JSON.*line 1"),
        ({"config.json": "[]", "model.safetensors": ""}, "config.json: expected a JSON object"),
        ({"config.json": CONFIG, "model.gguf": ""}, "no model.safetensors or .*model.gguf"),
        ({"config.json": CONFIG, "pytorch_model.bin": ""}, "pytorch_model.bin: the file is empty"),
        ({"config.json": CONFIG, "model.safetensors": ""}, "model.safetensors"),
    ],
)
def test_broken_folders(tmp_path: Path, files: dict[str, Any], complaint: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(ModelError, match=complaint) as caught:
        trine.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("./no/such/folder", "./no/such/folder: no such file or folder"),
        ("/no/such", "no such file or folder"),
        ("model.trine", "no such file or folder"),
        ("a/b/c", "no such file or folder"),
        (Path("owner/name"), "no such file or folder"),  # a path is no Hub id
    ],
)
def test_nothing_there(source: Any, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        trine.load(source)


def test_demo_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trine.demo.folder", lambda: tmp_path / "unpacked")
    with pytest.raises(ModelError, match=r"unpacked: no config\.json"):
        trine.load("demo")
    with pytest.raises(ModelError, match=r"^demo: no config\.json"):
        trine.load("./demo")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    with pytest.raises(ModelError, match=r"model\.onnx: not a file that can be read; what can is"):
        trine.load(path)


def test_arguments() -> None:
    with pytest.raises(InputError, match="task 'sing' is not known; known are embed"):
        trine.load("demo", task="sing")
    with pytest.raises(InputError, match="threads is 0"):
        trine.load("demo", threads=0)


# The Hub ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["gpt2", "owner/name", "a-b/c.d_e", "x" * 96])
def test_hub_ids(source: str) -> None:
    assert hub.is_id(source)


@pytest.mark.parametrize("source", ["", "a/b/c", "/a", "a/", "../a", "a..b", "a b", "x" * 97])
def test_no_hub_ids(source: str) -> None:
    assert not hub.is_id(source)


def test_what_is_fetched() -> None:
    wanted = """config.json modules.json tokenizer.json vocab.txt spm.model model.safetensors
    added_tokens.json model.safetensors.index.json model-00001-of-00002.safetensors
    sentence_bert_config.json
    1_Pooling/config.json 2_Dense/model.safetensors 10_Dense/config.json""".split()  # noqa: SIM905
    unwanted = """
    README.md pytorch_model.bin onnx/model.onnx onnx/config.json
    tf_model.h5 .gitattributes openvino/openvino_model.xml openvino/config.json
    flax_model.msgpack rust_model.ot 2_Dense/pytorch_model.bin original/consolidated.00.pth
    """.split()  # noqa: SIM905
    options = {"allow_patterns": list(hub._WANTED), "ignore_patterns": list(hub._UNWANTED)}
    assert list(filter_repo_objects([*wanted, *unwanted], **options)) == wanted


def test_torch_files_are_fetched_where_there_is_no_other(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def download(repository: str, **options: Any) -> str:
        assert (repository, options["revision"]) == ("owner/name", "v1")
        fetched.append(options["allow_patterns"])
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub.fetch("owner/name", revision="v1") == checkpoint
    assert fetched == [list(hub._WANTED)]
    (checkpoint / "model.safetensors").unlink()
    hub.fetch("owner/name", revision="v1")
    assert fetched[2:] == [["pytorch_model.bin", "pytorch_model-*.bin"]]
    listing = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    ]
    write(
        checkpoint,
        **{
            "modules.json": listing,
            "model.safetensors": "",
            "1_Pooling__config.json": {"pooling_mode": "cls"},
            "2_Dense__config.json": {"bias": True},
        },
    )
    hub.fetch("owner/name", revision="v1")
    assert fetched[4:] == [["2_Dense/pytorch_model.bin", "2_Dense/pytorch_model-*.bin"]]


def test_hub_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"pip install 'trine\[hub\]'"):
        trine.load("owner/no-such-model")


@pytest.fixture
def cached(checkpoint: Path, tmp_path: Path) -> Path:
    """A Hub cache that holds owner/name, as the client lays it out."""
    repository = tmp_path / "hub" / "models--owner--name"
    write(repository, refs__main="c0ffee")
    (repository / "snapshots").mkdir()
    checkpoint.rename(repository / "snapshots" / "c0ffee")
    return tmp_path / "hub"


@pytest.mark.usefixtures("fake")
def test_hub_cache(cached: Path) -> None:
    model = trine.load("owner/name", cache_dir=cached, local_files_only=True)
    assert model.encode("the river").shape == (12,)
    assert model.info()["source"] == "owner/name"


def test_hub_cache_without_it(cached: Path) -> None:
    with pytest.raises(
        ModelError, match="'owner/other' is no file or folder here, and the Hugging"
    ):
        trine.load("owner/other", cache_dir=cached, local_files_only=True)


@pytest.mark.usefixtures("fake")
def test_hub_offline(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read at import
    assert trine.load("owner/name", cache_dir=cached).info()["source"] == "owner/name"
    with pytest.raises(ModelError, match="owner/other"):
        trine.load("owner/other", cache_dir=cached)
