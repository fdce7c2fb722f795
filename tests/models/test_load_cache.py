# SPDX-License-Identifier: Apache-2.0
"""The load cache: the folder's bits, what an entry is keyed by, its size, the command."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached import EXAMPLES, TEXT, folder, load, names, place, result_of
from compare import HERE
from gguf_files import write

import trine
from trine import cli, convert, load_cache

__all__ = ["folder", "place"]  # fixtures
FOLDERS = sorted(path.parent for path in HERE.glob("*/*/config.json"))


# Results ---------------------------------------------------------------------------------------


def assert_cached_is_the_same(source: Path, dtype: str) -> None:
    with trine.load(source, dtype=dtype, device="cpu", cache=False) as model:
        assert "cache" not in model.info()
        with (
            trine.load(source, dtype=dtype, device="cpu") as first,
            trine.load(source, dtype=dtype, device="cpu") as second,
        ):
            assert first.info()["cache"].startswith("written to /")
            assert second.info()["cache"].startswith("mapped /")
            own = model.info()
            for mapped in (first, second):
                assert type(mapped) is type(model)
                info = mapped.info()
                for key in own.keys() - {"bytes_mapped", "bytes_allocated"}:
                    assert info[key] == own[key], key
                assert mapped.config == model.config
                assert mapped.max_seq_length == model.max_seq_length
                rows = [[5, 6, 7, 8, 9, 10], [4, 3, 2, 0, 0, 0]]
                ids = [rows] if isinstance(model, trine.Chooser) else rows
                expected = model.forward(ids)
                for name, values in mapped.forward(ids).items():
                    np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("source", FOLDERS, ids=[f"{p.parent.name}-{p.name}" for p in FOLDERS])
def test_folders(source: Path, dtype: str) -> None:
    assert_cached_is_the_same(source, dtype)


def write_gguf(folder: Path) -> Path:
    """A Llama of one layer."""
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
        return "F32", shape, rng.standard_normal(shape, np.float32).tobytes()

    tensors = {"token_embd.weight": draw(12, 16), "output_norm.weight": draw(16)}
    sizes = {
        "attn_norm": (16,),
        "attn_q": (16, 16),
        "attn_k": (8, 16),
        "attn_v": (8, 16),
        "attn_output": (16, 16),
        "ffn_norm": (16,),
        "ffn_gate": (24, 16),
        "ffn_up": (24, 16),
        "ffn_down": (16, 24),
    }
    tensors |= {f"blk.0.{name}.weight": draw(*shape) for name, shape in sizes.items()}
    return write(folder, tensors=tensors)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gguf_and_meta(dtype: str, tmp_path: Path) -> None:
    assert_cached_is_the_same(write_gguf(tmp_path), dtype)
    convert.convert(HERE / "llama" / "generate", tmp_path / "meta", to="meta")
    assert_cached_is_the_same(tmp_path / "meta", dtype)


def test_what_a_mapped_model_saves_is_the_same_file(place: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "rank", tmp_path / "rank")
    texts = [("harp", "Ada plays the harp.")]
    with trine.load(tmp_path / "rank", device="cpu", cache=False) as model:
        model.save(tmp_path / "own.trine")
        expected = model.predict(texts)
    trine.load(tmp_path / "rank", device="cpu").close()
    with trine.load(tmp_path / "rank", device="cpu") as mapped:
        assert mapped.predict(texts) == expected
        mapped.save(tmp_path / "again.trine")
    own = (tmp_path / "own.trine").read_bytes()
    assert (tmp_path / "again.trine").read_bytes() == own
    assert next(place.glob("*.trine")).read_bytes() == own


def test_errors_name_the_folder(tmp_path: Path) -> None:
    source = Path(shutil.copytree(HERE / "llama" / "generate", tmp_path / "model"))
    assert not (source / "tokenizer.json").exists()
    for _ in range(2):
        with (
            trine.load(source) as model,
            pytest.raises(trine.ModelError, match=re.escape(str(source))),
        ):
            model.generate("text")


# What it is keyed by -----------------------------------------------------------------------------


def test_every_small_file_and_option_counts(folder: Path, place: Path) -> None:
    assert load(folder)[0] == "written to"
    assert load(folder, threads=1)[0] == "mapped"
    assert load(folder, dtype="bfloat16")[0] == "written to"
    assert load(folder, dtype="float32", task="classify")[0] == "written to"
    (folder / "README.md").write_text("no part of the model")
    (folder / "pytorch_model.bin").write_text("neither, beside safetensors")
    assert load(folder)[0] == "mapped"
    # That folders give the same result with another line break is not what the cache goes by.
    small = [p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".jinja", ".model")]
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= {p.name for p in small}
    for path in [*small, folder / "chat_template.jinja", folder / "special_tokens_map.json"]:
        before = path.read_bytes() if path.exists() else b"{}"
        path.write_bytes(before + b"\n")
        assert load(folder)[0] == "written to", path
        path.write_bytes(before)
    assert len(list(place.glob("*.trine"))) == 3 + len(small) + 2


def test_another_build_of_the_package_has_its_own_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(folder)[0] == "written to"
    monkeypatch.setattr(load_cache, "_package", lambda: "another")
    assert load(folder)[0] == "written to"


def change_a_weight(path: Path) -> None:
    """Change a number in the middle of the file, in place; size and mtime stay."""
    status, content = path.stat(), path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    tensor = json.loads(content[8:end])["mpnet.encoder.layer.0.output.LayerNorm.bias"]
    at = end + tensor["data_offsets"][0] + 1  # the sign and the exponent of a BF16
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 0x40]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def test_changed_weights_with_the_same_size_and_mtime(folder: Path) -> None:
    note, before = load(folder)
    change_a_weight(folder / "model.safetensors")
    expected = result_of(folder)
    assert expected != before
    assert load(folder) == ("written to", expected)
    change_a_weight(folder / "model.safetensors")
    assert load(folder) == ("mapped", before)
    assert note == "written to"


@pytest.mark.skipif(sys.platform == "win32", reason="its ctime is the time of creation")
def test_large_weights_are_told_apart_by_what_cannot_be_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = folder / "model.safetensors"
    monkeypatch.setattr(load_cache, "_WHOLE", 8192)
    assert weights.stat().st_size > 4 * load_cache._WHOLE
    with trine.load(folder, dtype="float32") as model:
        assert model.info()["cache"].endswith(" was written a moment ago")
    monkeypatch.setattr(load_cache, "_YOUNG", 0)
    assert load(folder)[0] == "written to"
    assert load(folder)[0] == "mapped"
    monkeypatch.setattr(load_cache, "_PIECES", 2)  # first and last: what lies between is not read
    _, before = load(folder)
    monkeypatch.setattr(load_cache, "_YOUNG", 10**7)
    threading.Event().wait(0.02)  # the resolution of the clock of files
    change_a_weight(weights)
    threading.Event().wait(0.02)
    expected = result_of(folder)
    assert expected != before
    assert load(folder) == ("written to", expected)


def test_the_pieces_show_a_change_where_the_times_do_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_cache, "_WHOLE", 8192)
    monkeypatch.setattr(load_cache, "_YOUNG", 0)
    monkeypatch.setattr(load_cache, "_stamp", lambda status: [status.st_size])
    before = load_cache._identity(folder / "model.safetensors")
    change_a_weight(folder / "model.safetensors")
    assert load_cache._identity(folder / "model.safetensors") != before


def test_files_that_change_while_they_are_loaded(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trine import loading

    build = loading.build

    def slow(*args: Any, **options: Any) -> Any:
        model = build(*args, **options)
        change_a_weight(folder / "model.safetensors")
        return model

    monkeypatch.setattr(loading, "build", slow)
    with trine.load(folder, dtype="float32") as model:
        assert model.info()["cache"] == "not used: the files changed while they were loaded"
    assert not list(place.glob("*.trine"))


# Size --------------------------------------------------------------------------------------------


def test_the_least_used_goes_first(
    folder: Path, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [Path(shutil.copytree(folder, tmp_path / name)) for name in "abcd"]
    for index, source in enumerate(sources):
        (source / "config.json").write_text((source / "config.json").read_text() + "\n" * index)
    assert [load(source)[0] for source in sources[:3]] == ["written to"] * 3
    files = sorted(place.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for age, path in enumerate(reversed(files)):
        os.utime(path, (1000 - age, 1000 - age))
    assert load(sources[0])[0] == "mapped"  # b is now the one that waits for longest
    one = next(place.glob("*.trine")).stat().st_size
    monkeypatch.setenv("TRINE_CACHE_SIZE", str(3 * one + 3000))
    with trine.load(sources[1], dtype="float32") as model:  # b is used: then c is
        expected = model.predict(TEXT)
        os.utime(files[1], (998, 998))
        assert load(sources[3])[0] == "written to"
        assert model.predict(TEXT) == expected  # though its file is gone
    assert len(list(place.glob("*.trine"))) == 3
    assert load(sources[0])[0] == load(sources[2])[0] == load(sources[3])[0] == "mapped"
    assert load(sources[1])[0] == "written to"
    assert len(list(place.glob("*.trine"))) == 3


def test_left_overs_are_removed(folder: Path, place: Path) -> None:
    place.mkdir(parents=True)
    (place / "0123.trine.77.tmp").write_bytes(bytes(1000))
    (place / "0124.trine").write_bytes(bytes(1000))  # no record: not all of it may be there
    assert load(folder)[0] == "written to"
    assert names(place) == [".json", ".lock", ".trine"]


def test_a_model_that_is_larger_than_the_cache(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("1KB", "50KB"):
        monkeypatch.setenv("TRINE_CACHE_SIZE", limit)
        with trine.load(folder, dtype="float32") as model:
            said = rf"not used: \d+ bytes are more than TRINE_CACHE_SIZE, {limit[:-2]}000"
            assert re.fullmatch(said, model.info()["cache"])
    assert names(place) == [".lock"]


def test_small_models_and_other_devices_are_left_alone(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trine.load(folder, device="ref", dtype="float32") as model:
        assert "cache" not in model.info()
    monkeypatch.setattr(load_cache, "SMALLEST", 8 << 20)
    with trine.load(folder, dtype="float32") as model:
        said = "not used: weights of less than 8 MiB load as fast without"
        assert model.info()["cache"] == said
    assert not place.exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("12", 12), ("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("2T", 2 * 10**12)],
)
def test_sizes(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRINE_CACHE_SIZE", text)
    assert load_cache.size_limit() == size


def test_no_size(folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("much", "-1", "1XB", "nan", "inf", "GB"):
        monkeypatch.setenv("TRINE_CACHE_SIZE", text)
        with pytest.raises(trine.InputError, match=f"'{text}', expected a size such as 500MB"):
            load_cache.size_limit()
        assert load(folder)[0].startswith("not used: TRINE_CACHE_SIZE is ")
    monkeypatch.setenv("TRINE_CACHE_SIZE", "0")
    assert load(folder)[0] == ""
    monkeypatch.delenv("TRINE_CACHE_SIZE")
    assert load_cache.size_limit() == 10**10
    assert not place.exists()


# The command -------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert cli.main(arguments) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_command(folder: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = {"folder": str(place), "models": 0, "bytes": 0, "limit": 10**9}
    assert printed(capsys, "cache", "list") == []
    assert printed(capsys, "cache", "size") == [empty]
    assert printed(capsys, "cache", "clear") == [{"removed": 0, "bytes": 0, "bytes_left": 0}]
    assert printed(capsys, "classify", "--model", str(folder), "--no-cache", TEXT)
    assert not place.exists()
    output = str(folder / "m.trine")
    assert printed(capsys, "compile", str(folder), "-o", output, "--dtype", "float32")
    assert not place.exists()
    load(folder)
    first = next(place.glob("*.trine"))
    load(folder, dtype="bfloat16")
    (place / "0124.trine").write_bytes(bytes(1000))
    rows = printed(capsys, "cache", "list")
    assert rows[0] == {"file": str(place / "0124.trine"), "bytes": 1000, "damaged": True}
    size = sum(path.stat().st_size for path in place.iterdir())
    assert sum(row["bytes"] for row in rows) == size
    assert rows[1]["file"] == str(first)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", rows[1].pop("used"))
    del rows[1]["file"], rows[1]["bytes"]
    architecture = "MPNetForSequenceClassification"
    assert rows[1] == {
        "source": str(folder),
        "architecture": architecture,
        "task": "classify",
        "dtype": "float32",
    }
    assert printed(capsys, "cache", "size") == [empty | {"models": 2, "bytes": size}]
    with trine.load(folder, dtype="float32") as model:
        expected = model.predict(TEXT)
        cleared = {"removed": 3, "bytes": size, "bytes_left": 0}
        assert printed(capsys, "cache", "clear") == [cleared]
        assert model.predict(TEXT) == expected  # it has the file mapped
    assert not list(place.iterdir())
