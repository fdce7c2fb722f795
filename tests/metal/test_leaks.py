# SPDX-License-Identifier: Apache-2.0
"""Every object of Metal's is let go with the last model, whether its runs went well or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import emulated
import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PROGRAM = """
import ctypes, gc, sys
import trine
fake = ctypes.CDLL(sys.argv[1])  # the same one that the plugin has
names = ctypes.create_string_buffer(1000)
for folder, ask in (("sentence", lambda m: m.encode(["A sentence.", "Another one. " * 20])),
                    ("llama/generate", lambda m: m.generate([[5, 6, 7]] * 3, max_new_tokens=70))):
    try:
        with trine.load(sys.argv[2] + "/" + folder, device="metal", dtype="bfloat16") as model:
            ask(model)
            ask(model)
            assert fake.trine_fake_live(names, 1000) > 10
            print("done")
    except trine.DeviceError as error:
        print("failed", error)
    model = None
    gc.collect()
    print(fake.trine_fake_live(names, 1000), names.value.decode())
"""


@pytest.mark.parametrize(
    ("plan", "fails"),
    [
        ("", 0),
        ("newBuffer:1:30", 1),
        ("newBufferWithBytesNoCopy:1:1", 1),
        ("run:8:2", 2),
        ("commandBuffer:1:2", 2),
        ("newPipeline:1:3", 2),
    ],
)
def test_nothing_is_left(plan: str, fails: int) -> None:
    folder = emulated.plugin("metal")
    environment = {**os.environ, "TRINE_SIMT_FAIL": plan, "TRINE_PLUGIN_PATH": str(folder)}
    library = folder.parent / "libtrine_fake_metal.so"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(library), str(GOLDEN)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith(("0", "1"))] == ["0 ", "0 "], done.stdout
    assert sum(line.startswith("failed") for line in lines) == fails, done.stdout
