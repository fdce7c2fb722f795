# SPDX-License-Identifier: Apache-2.0
"""The pretended Metal finds what the real one would not forgive: each mistake is made once."""

from __future__ import annotations

import subprocess

import emulated
import pytest

# What tests/metal/misuse.cc does, and what is said of it.
MISTAKES = {
    "unknown selector": "has no method dispatchThreads:threadsPerThreadgroup:",
    "freed object": "length is sent to a freed MTLBuffer",
    "freed argument": "an argument is a freed MTLBuffer",
    "released twice": "release is sent to a freed MTLBuffer",
    "open encoder": "is committed while an encoder is open",
    "two encoders": "two encoders of a MTLCommandBuffer are open",
    "dropped encoder": "is freed before endEncoding",
    "used after its end": "is used after endEncoding",
    "committed twice": "is committed twice",
    "waited too early": "that was not committed",
    "no pipeline": "a dispatch without a pipeline",
    "unbound buffer": "scale has nothing bound at index 1",
    "no arguments": "scale: ",
    "short arguments": "scale: ",
    "offset out of range": "offset 1024 into a buffer of 32 at index 0",
    "offset of a few bytes": "is no multiple of 256",
    "no buffer": "null instead of an object of MTLBuffer",
    "another kind of object": "an object of MTLCommandBuffer instead of one of MTLBuffer",
    "too many bytes": "setBytes takes 1 to 4096 bytes, not 5000",
    "written behind its end": "of a buffer of 32 was written, as is seen after scale",
    "no threads": "without threads, or with too many",
    "too many threads": "without threads, or with too many",
    "not whole pages": "is of whole pages",
    "no pool": "is autoreleased without a pool",
}


@pytest.fixture(scope="module")
def program() -> str:
    return str(emulated.build("trine_metal_misuse") / "trine_metal_misuse")


def run(program: str, mistake: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, mistake], capture_output=True, text=True, check=False)


def test_no_mistake(program: str) -> None:
    done = run(program, "none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_reported(program: str, mistake: str) -> None:
    done = run(program, mistake)
    assert done.returncode < 0, done.stdout  # aborted
    assert done.stderr.startswith("fake Metal: ")
    assert MISTAKES[mistake] in done.stderr


def test_a_leak_is_reported(program: str) -> None:
    done = run(program, "leak")
    assert done.returncode == 1
    assert done.stdout == "not freed:\nMTLBuffer: 1\n"


def test_every_mistake_of_the_program_is_expected(program: str) -> None:
    listed = set(run(program, "").stdout.splitlines())
    assert listed == (MISTAKES.keys() | {"none", "leak"}) - {"no pool"}
