# SPDX-License-Identifier: Apache-2.0
"""The table of docs/devices.md: what the plugin lowers, where its kernels and their tests are."""

from __future__ import annotations

import re
from pathlib import Path

from trine import _core

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(
    r"^\| (\w+)( \(.*?\))? \| (cuda/\S+) \| (\S+?)(:? .*?)? \| (yes|no) \|$",
    (ROOT / "docs/devices.md").read_text(),
    re.MULTILINE,
)


def test_the_table_is_true() -> None:
    source = (ROOT / "csrc/gpu/values.cc").read_text()
    supports = source[source.index("bool supports(") :]
    lowered = set(re.findall(r"case Op::(\w+):", supports[: supports.index("default:")]))
    assert lowered
    assert lowered <= {name for name, _, _ in _core.ops()}
    assert {row[0] for row in ROWS} == lowered
    for op, variant, kernel, test, _, _ in ROWS:
        launch = "copy_columns" if op == "concat" else op
        assert re.search(rf"cudaError_t {launch}\w*\(", (ROOT / kernel).read_text()), (op, variant)
        if test != "no":
            assert re.search(rf"\b(cuda::)?{launch}\(", (ROOT / test).read_text()), op
