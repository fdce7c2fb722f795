# SPDX-License-Identifier: Apache-2.0
"""The load cache where files are damaged, processes race or die, and nothing can be written."""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from cached import EXAMPLES, TEXT, folder, load, names, place, result_of

import trine
from trine import load_cache

__all__ = ["folder", "place"]  # fixtures


# Damage ------------------------------------------------------------------------------------------


def rewrite(path: Path, content: bytes, record: Path | None = None) -> None:
    path.write_bytes(content)
    if record is not None:  # as if the disk had done it
        values = json.loads(record.read_bytes())
        values["file"] = load_cache._stamp(path.stat())
        record.write_text(json.dumps(values))


def test_damaged_files_are_written_again(folder: Path, place: Path) -> None:
    _, expected = load(folder)
    file, record = (next(place.glob(f"*.{kind}")) for kind in ("trine", "json"))
    sound, sound_record = file.read_bytes(), record.read_bytes()
    flipped = bytearray(sound)
    flipped[-1] ^= 1  # a number of the weights, which no checksum covers
    middle = bytearray(sound)
    middle[1000] ^= 4  # metadata
    short = sound[: len(sound) // 2]
    for content, whose in [
        (flipped, None),
        (middle, record),
        (middle, None),
        (short, record),
        (b"", record),
        (b"", None),
    ]:
        rewrite(file, bytes(content), whose)
        assert load(folder) == ("written to", expected)
        assert file.read_bytes() == sound
        assert load(folder) == ("mapped", expected)
    for content in (b"", b"[]", b"{}", b"{", b'{"file": 0}', sound_record[:-1]):
        record.write_bytes(content)
        assert load(folder) == ("written to", expected)
    for path in (file, record):
        path.unlink()
        assert load(folder) == ("written to", expected)
    assert names(place) == [".json", ".lock", ".trine"]


# Another process, with room for models of any size.
PROGRAM = """
import json, os, resource, signal, sys
from trine import load, load_cache
load_cache.SMALLEST = load_cache.RESERVE = 0
{first}
with load(sys.argv[1], device="cpu", dtype="float32") as model:
    print(json.dumps([model.info()["cache"].split(" /")[0], model.predict(sys.argv[2])]))
"""


def start(folder: Path, first: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.format(first=first), str(folder), TEXT]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def test_processes_that_load_at_once(folder: Path, place: Path) -> None:
    """One writes, the others wait for it and map its file."""
    found = [result(process) for process in [start(folder) for _ in range(5)]]
    expected = result_of(folder)
    assert sorted(note for note, _ in found) == ["mapped"] * 4 + ["written to"]
    assert all(value == expected for _, value in found)
    assert names(place) == [".json", ".lock", ".trine"]


def test_threads_that_load_at_once(folder: Path, place: Path) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(load(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(note for note, _ in found) == ["mapped"] * 3 + ["written to"]
    assert len({str(value) for _, value in found}) == 1
    assert names(place) == [".json", ".lock", ".trine"]


# The kernel ends the process at the given byte of the file.
KILLED = """
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""
FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_writer_that_is_killed(folder: Path, place: Path) -> None:
    for size in (1, 20000, 60000):
        process = start(folder, KILLED.format(size))
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGXFSZ
        assert not list(place.glob("*.trine"))
        assert list(place.glob("*.tmp"))
    assert load(folder)[0] == "written to"
    assert load(folder)[0] == "mapped"
    assert names(place) == [".json", ".lock", ".trine"]


# Where it cannot be written ----------------------------------------------------------------------


def test_a_disk_that_is_full(folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = result_of(folder)
    assert result(start(folder, FULL)) == ["not used:", expected]
    assert names(place) == [".lock"]
    monkeypatch.setattr(load_cache, "RESERVE", 1 << 60)
    with trine.load(folder, dtype="float32") as model:
        said = r"not used: \d+ bytes are free on the disk of /.*loads"
        assert re.fullmatch(said, model.info()["cache"])
    assert names(place) == [".lock"]
    monkeypatch.setattr(load_cache, "RESERVE", 0)

    def full(*_: Any) -> None:  # the file has found room, its record has not
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert load(folder)[0] == "not used:"
    assert names(place) == [".lock"]


def test_a_place_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = result_of(folder)
    (tmp_path / "cache").write_text("a file in the way")
    with trine.load(folder, dtype="float32") as model:
        assert model.predict(TEXT) == expected
        path = tmp_path / "cache" / "loads"
        assert model.info()["cache"] == f"not used: {path}: Not a directory"
    monkeypatch.setenv("TRINE_CACHE", "/proc/self/fd/none")
    note, found = load(folder)
    assert note.startswith("not used:")
    assert found == expected


# Permissions stop root only without CAP_DAC_OVERRIDE, the second bit of the first set.
OBEY_PERMISSIONS = """
if os.geteuid() == 0:
    import ctypes
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~2
    assert libc.capset(header, sets) == 0
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_a_folder_that_may_only_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot write there maps what lies there, and loads the rest as ever."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        source = Path(shutil.copytree(EXAMPLES / "classify", root / "model"))
        monkeypatch.setenv("TRINE_CACHE", name)
        _, expected = load(source)
        place = root / "loads"
        there = sorted(place.iterdir())
        for path in (root, source, place):
            path.chmod(0o555)
        assert result(start(source, OBEY_PERMISSIONS)) == ["mapped", expected]
        text = (source / "config.json").read_text()
        (source / "config.json").chmod(0o644)
        (source / "config.json").write_text(text + "\n")
        assert result(start(source, OBEY_PERMISSIONS)) == ["not used:", expected]
        assert sorted(place.iterdir()) == there
        for path in (root, source, place):
            path.chmod(0o755)


def test_a_writer_that_hangs(folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trine.cache import file_lock

    expected = load(folder)[1]
    key = next(place.glob("*.lock"))
    next(place.glob("*.trine")).unlink()
    monkeypatch.setattr(load_cache, "PATIENCE", 0.05)
    with file_lock(key):
        note, found = load(folder)
    assert note == "not used:"
    assert found == expected
    assert load(folder)[0] == "written to"


def test_a_tokenizer_that_cannot_be_read(folder: Path, place: Path) -> None:
    """The model loads and takes ids, as without the cache."""
    (folder / "tokenizer.json").write_text("{")
    with trine.load(folder, dtype="float32") as model:
        assert model.forward([[1, 2, 3]])["logits"].shape[0] == 1
        with pytest.raises(trine.ModelError, match=r"model/tokenizer\.json: not valid JSON"):
            model.predict(TEXT)
    assert names(place) == [".lock"]


def test_errors_of_loading_are_what_they_were(folder: Path, place: Path) -> None:
    (folder / "config.json").write_text("{}")
    for cache in (True, False):
        with pytest.raises(trine.ModelError, match=r"config\.json: architectures is \[\]"):
            trine.load(folder, cache=cache)
    assert names(place) == [".lock"]
