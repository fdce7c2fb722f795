# SPDX-License-Identifier: Apache-2.0
"""The table of docs/devices.md: Metal's kernels, their sources and what was done with them."""

from __future__ import annotations

import re
from pathlib import Path

from trine import _core

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(
    r"^\| (\w+) \| (\S+) \| metal/kernels/(\w+)\.metal \| (clang|no) \| (\S+) \| (never|yes) \|$",
    (ROOT / "docs/devices.md").read_text(),
    re.MULTILINE,
)


def expanded(names: str) -> list[str]:
    """``a_{b,c}`` is a_b and a_c."""
    found = re.match(r"(.*?)\{(.*?)\}(.*)$", names)
    if found is None:
        return [names]
    return [name for part in found[2].split(",") for name in expanded(found[1] + part + found[3])]


def test_the_table_is_true() -> None:
    text = (ROOT / "metal/kernels/launch.h").read_text()
    listed = dict(re.findall(r"^ +X\((\w+), (\w+)\)", text, re.MULTILINE))
    in_table = {name: row[2] for row in ROWS for name in expanded(row[1])}
    assert in_table == listed
    assert {row[0] for row in ROWS} <= {name for name, _, _ in _core.ops()}
    for op, _, source, types, test, hardware in ROWS:
        # test_msl.py checks every source there is, test_emulated.py runs these tests.
        assert types == "clang"
        assert (ROOT / f"metal/kernels/{source}.metal").exists()
        assert (ROOT / test).match("tests/[gm]*/test_*.cc")
        launch = "copy_columns" if op == "concat" else op
        assert re.search(rf"\b(cuda::)?{launch}(_launch)?\(", (ROOT / test).read_text()), op
        # Change this line with the first GPU of Apple's that ran them.
        assert hardware == "never"
