# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save are read bit for bit, without torch; abusive ones end in a ModelError."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from make_torch_attacks import ATTACKS, Attack
from torch_files import GOOD, GOOD_LEGACY, TAKEN

import trine
from trine._core import WeightStore

HERE = Path(__file__).parent
FIXTURES = HERE / "torch"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())["files"]


def open_store(path: Path) -> WeightStore:
    return WeightStore([(path, "")])


def content_of(store: WeightStore) -> dict[str, list[Any]]:
    return {n: [store.dtype(n), list(store.shape(n)), store.read(n).hex()] for n in store.names()}


@pytest.mark.parametrize("name", EXPECTED)
def test_reads_what_torch_wrote(name: str) -> None:
    store = open_store(FIXTURES / name)
    assert content_of(store) == EXPECTED[name]
    if not name.endswith(".json"):
        assert store.names() == list(EXPECTED[name])
        assert store.bytes_mapped == (FIXTURES / name).stat().st_size


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("module.pt", r"global 'torch\.nn\.modules\.container\.Sequential' is refused"),
        ("script.pt", r"is a TorchScript archive; save its state_dict\(\) instead"),
    ],
)
def test_whole_modules_are_refused(name: str, complaint: str) -> None:
    with pytest.raises(trine.ModelError, match=rf"{name}: .*{complaint}"):
        open_store(FIXTURES / name)


@pytest.mark.parametrize("name", TAKEN)
def test_rare_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rare.pt"
    path.write_bytes(TAKEN[name])
    store = open_store(path)
    first, count = (2, 2) if name == "part" else (0, 6)
    assert store.shape("w") == ((2,) if name == "part" else (2, 3))
    assert store.read("w") == struct.pack(f"<{count}f", *range(first, first + count))


@pytest.mark.parametrize("attack", ATTACKS, ids=[a.name for a in ATTACKS])
def test_attack_is_refused(attack: Attack, tmp_path: Path) -> None:
    path = tmp_path / f"{attack.name}.bin"
    path.write_bytes(attack.content)
    with pytest.raises(trine.ModelError) as caught:
        open_store(path)
    message = str(caught.value)
    assert path.name in message
    for part in attack.mentions:
        assert part in message
    assert len(message) < 2000
    assert message.isprintable()


@pytest.mark.parametrize("content", [GOOD, GOOD_LEGACY], ids=["zip", "legacy"])
def test_every_truncation_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.bin"
    path.write_bytes(content)
    assert open_store(path).names() == ["first", "w"]
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(trine.ModelError, match=r"cut\.bin: "):
            open_store(path)


@pytest.mark.parametrize("content", [GOOD, GOOD_LEGACY], ids=["zip", "legacy"])
def test_every_changed_byte_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "changed.bin"
    refused = 0
    for at in range(len(content)):
        for value in {0, 0xFF, content[at] ^ 1, content[at] ^ 0x80} - {content[at]}:
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            try:
                content_of(open_store(path))
            except trine.ModelError:
                refused += 1
    assert refused > 2 * len(content)
