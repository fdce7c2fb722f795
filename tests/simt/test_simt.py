# SPDX-License-Identifier: Apache-2.0
"""The emulator's own tests, and proof that it finds what it claims to find.

``SIMT_KIND=address`` or ``thread`` builds with sanitizers: see tests/simt/run_sanitized.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import build
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from pathlib import Path

KIND = os.environ.get("SIMT_KIND", "plain")
SCHEDULES = ["in-order", "reverse", "greedy:1", "greedy:2", "random:1", "random:2"]

LINE = r"tests/simt/planted\.cuh:\d+"
WRONG = r"wrong: "
NAN = r"wrong: NaN"
RACE = rf"(?s)data race.*{LINE}.*(Previous|previous).*{LINE}.*in \S+: block \(\d, 0, 0\), thread"
# What each bug must be reported as, in the builds that can see it. Reports of the emulator name two
# threads or lines; a wrong result must show in at least one of the schedules.
REPORTS = {
    "missing_barrier": {"plain": WRONG, "thread": RACE},
    "missing_second_barrier": {"plain": WRONG, "thread": RACE},
    "divergent_barrier": {
        "all": rf"error: .*part at a barrier: thread .* at {LINE}, thread .* at {LINE}"
    },
    "barrier_after_exit": {"all": rf"error: .*part at a barrier: thread .* at {LINE}.* has ended"},
    "partial_shuffle": {"all": rf"error: .*thread .* waits in __shfl_xor_sync at {LINE}, .*ended"},
    "left_out_lane": {
        "all": rf"error: .*thread .* at {LINE}: a lane reads from lane 16, which isn"
    },
    "uninitialised": {"all": NAN},
    "global_read": {
        "address": rf"(?s)heap-buffer-overflow.*READ of size 4.*{LINE}.*in \S+: block \(1, 0, 0\)"
    },
    "shared_write": {
        "plain": rf"error: .*written 0 bytes past the end of partial, declared at {LINE}",
        "address": rf"{LINE}:\d+: runtime error: index 32 out of bounds",
    },
    "shared_overrun": {
        "plain": rf"error: .*written 0 bytes past the end of partial, declared at {LINE}",
        "address": rf"(?s)use-after-poison.*WRITE of size 4.*{LINE}.*in \S+: block \(0, 0, 0\)",
    },
    "blocks_share_output": {"plain": NAN, "thread": RACE},
    "missing_wait": {"all": NAN},
    "missing_buffer_barrier": {"plain": NAN, "thread": RACE},
    "unfinished_copy": {
        "all": r"error: .*thread .* ended with a cp.async that it never waited for"
    },
    "misaligned_copy": {"all": rf"error: .*at {LINE}: the source of cp.async is not aligned to 16"},
    "misaligned_vector": {"address": rf"{LINE}:\d+: runtime error: .*misaligned address .*float4"},
    "wrong_fragment": {"all": WRONG},
}


def built(name: str, *sources: str) -> Path:
    lock = build.ROOT / "build" / f"simt-{KIND}.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        return build.build(name, list(sources), KIND)


@pytest.fixture(scope="session")
def planted() -> Path:
    return built("planted", "tests/simt/planted.cc")


def outcome(program: Path, bug: str, schedule: str) -> str:
    environment = {**os.environ, **build.ENVIRONMENT}
    done = subprocess.run(
        [program, bug, schedule], capture_output=True, text=True, env=environment, check=False
    )
    return done.stderr + done.stdout


def test_machine_and_fragments() -> None:
    program = built(
        "simt_tests",
        "tests/simt/test_machine.cc",
        "tests/simt/test_fragments.cc",
        "tests/cpp/main.cc",
    )
    environment = {**os.environ, **build.ENVIRONMENT}
    done = subprocess.run([program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert re.search(r"\n([1-9]\d*) passed, 0 failed\n$", "\n" + done.stdout), done.stdout


@pytest.mark.parametrize("kernel", ["softmax", "gemm"])
def test_correct_kernels_pass(planted: Path, kernel: str) -> None:
    for schedule in SCHEDULES:
        assert outcome(planted, kernel, schedule) == "correct\n", schedule


@pytest.mark.parametrize("bug", REPORTS)
def test_planted_bug_is_reported(planted: Path, bug: str) -> None:
    expected = REPORTS[bug].get(KIND, REPORTS[bug].get("all"))
    if expected is None:
        pytest.skip(f"not for this build to see: {', '.join(REPORTS[bug])}")
    outcomes = [outcome(planted, bug, schedule) for schedule in SCHEDULES]
    found = [re.search(expected, text) is not None for text in outcomes]
    # Only what depends on who comes first may be missed under some schedules.
    late = expected in {WRONG, NAN, RACE}
    assert any(found) if late else all(found), "\n".join(outcomes)


def test_every_planted_bug_has_a_report(planted: Path) -> None:
    done = subprocess.run([planted, "--list"], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {*REPORTS, "softmax", "gemm"}
    assert all(REPORTS.values())
