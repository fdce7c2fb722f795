# SPDX-License-Identifier: Apache-2.0
"""Metal's kernels on the emulator, and proof that it finds bugs in them.

tests/gpu/test_<op>.cc tests CUDA's kernels, too. ``SIMT_KIND=address`` or ``thread`` builds with
sanitizers: see tests/simt/run_sanitized.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import NamedTuple

import build
import pytest
from filelock import FileLock

KIND = os.environ.get("SIMT_KIND", "plain")
KERNELS = [str(p.relative_to(build.ROOT)) for p in sorted((build.ROOT / "metal").glob("*/*.metal"))]
OPS = sorted(p.stem.removeprefix("test_") for p in (build.ROOT / "tests/gpu").glob("test_*.cc"))
SCHEDULES = ["in-order", "reverse", "greedy:1", "greedy:2", "random:1", "random:2"]


@pytest.mark.parametrize("op", OPS)
def test_kernels_on_the_emulator(op: str) -> None:
    sources = [f"tests/gpu/test_{op}.cc", "tests/metal/launches.cc", *KERNELS]
    build.run_tests(f"metal_{op}", sources, "TRINE_METAL")


def test_what_the_emulator_gives_to_kernels() -> None:
    own = ["tests/metal/test_kernels.cc", "tests/metal/probe.metal"]
    build.run_tests("metal_kernels", [*own, *KERNELS], "TRINE_METAL")


def test_linear_on_weights_of_few_bits() -> None:
    sources = ["tests/metal/test_quantised.cc", "tests/metal/launches.cc", *KERNELS]
    build.run_tests("metal_quantised", sources, "TRINE_METAL")


WRONG = "wrong: "
NAN = "wrong: NaN"
THREADGROUP_BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
SIMDGROUP_BARRIER = "simdgroup_barrier(mem_flags::mem_threadgroup);"


class Bug(NamedTuple):
    kernel: str  # planted's name for it
    source: str
    old: str
    new: str
    reports: dict[str, str]  # by the kind of build that can see it


def race(source: str) -> str:
    line = rf"planted/\w+/{source}\.metal:\d+"
    return rf"(?s)data race.*{line}.*(Previous|previous).*{line}.*: block \(\d"


STAGE = f"""        {SIMDGROUP_BARRIER}
      }} else {{
        {THREADGROUP_BARRIER}
      }}
#pragma unroll"""
BUGS = {
    "none": Bug("linear", "linear", "", "", {"all": "^correct\n$"}),
    "none_split": Bug("linear_split", "linear", "", "", {"all": "^correct\n$"}),
    "none_pool": Bug("pool", "rows", "", "", {"all": "^correct\n$"}),
    "missing_barrier": Bug(
        "linear",
        "linear",
        STAGE,
        STAGE.replace(f"        {THREADGROUP_BARRIER}", "        ;"),
        {"plain": WRONG, "thread": race("linear")},
    ),
    "missing_simdgroup_barrier": Bug(
        "linear_split",
        "linear",
        STAGE,
        STAGE.replace(SIMDGROUP_BARRIER, ";"),
        {"plain": WRONG, "thread": race("linear")},
    ),
    "missing_last_barrier": Bug(
        "linear",
        "linear",
        f"{THREADGROUP_BARRIER}  // the sums have been read",
        "",
        {"plain": WRONG, "thread": race("linear")},
    ),
    "divergent_barrier": Bug(
        "linear",
        "linear",
        f"{THREADGROUP_BARRIER}  // the sums have been read",
        f"if (thread_id != 70) {THREADGROUP_BARRIER}",
        {"all": r"error: .*part at a barrier: thread .* at .*linear\.metal:\d+, thread \(70"},
    ),
    "divergent_simdgroup": Bug(
        "linear_split",
        "linear",
        "            simdgroup_multiply_accumulate(",
        "            if (lane != 9) simdgroup_multiply_accumulate(",
        {"all": r"error: .*lanes of a warp part: thread .* at .*linear\.metal:\d+, thread"},
    ),
    "uninitialised": Bug(
        "linear",
        "linear",
        "for (int q = loader; q < kRows * (kStageK / 4); q += kLoaders)",
        "for (int q = loader + kLoaders; q < kRows * (kStageK / 4); q += kLoaders)",
        {"all": NAN},
    ),
    "transposed": Bug("linear", "linear", "ulong2(0), true)", "ulong2(0), false)", {"all": WRONG}),
    "device_read": Bug(
        "linear",
        "linear",
        "if (col0 + col < args.n) WeightsOf",
        "WeightsOf",
        # Far beyond the weights' end, where there may be no memory at all.
        {"address": r"(?s)(heap-buffer-overflow|SEGV).*READ.*quads\.h:\d+.*in linear_\w+: block"},
    ),
    "threadgroup_write": Bug(
        "pool",
        "rows",
        "TRINE_SHARED(float, partial, kPoolWays * 8 * 4);",
        "TRINE_SHARED(float, partial, kPoolWays * 8 * 4 - 1);",
        {
            "plain": r"error: .*written 0 bytes past the end of partial, declared at .*rows\.metal",
            "address": r"rows\.metal:\d+:\d+: runtime error: index 1023 out of bounds",
        },
    ),
    "barrier_of_nothing": Bug(
        "pool",
        "rows",
        f"  {THREADGROUP_BARRIER}\n  if (way",
        "  threadgroup_barrier(mem_flags::mem_none);\n  if (way",
        {"all": r"error: .*rows\.metal:\d+: a barrier that orders no threadgroup memory"},
    ),
}


@pytest.mark.exhaustive  # a build each
@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_reported(name: str) -> None:
    bug = BUGS[name]
    expected = bug.reports.get(KIND, bug.reports.get("all"))
    if expected is None:
        pytest.skip(f"not for this build to see: {', '.join(bug.reports)}")
    copy = build.ROOT / "build" / "simt" / "planted" / name / f"{bug.source}.metal"
    text = (build.ROOT / "metal/kernels" / copy.name).read_text()
    if bug.old:
        assert text.count(bug.old) == 1, name
        text = text.replace(bug.old, bug.new)
    with FileLock(build.ROOT / "build" / f"simt-{KIND}.lock"):
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or copy.read_text() != text:
            copy.write_text(text)
        sources = ["tests/metal/planted.cc", str(copy.relative_to(build.ROOT))]
        program = build.build(f"metal_planted_{name}", sources, KIND)
    outcomes = []
    for schedule in SCHEDULES:
        done = subprocess.run(
            [program, bug.kernel, schedule],
            capture_output=True,
            text=True,
            env={**os.environ, **build.ENVIRONMENT},
            check=False,
        )
        outcomes.append(done.stderr + done.stdout)
    found = [re.search(expected, text) is not None for text in outcomes]
    # Only what depends on who comes first may be missed under some schedules.
    late = name.startswith("missing")
    assert any(found) if late else all(found), "\n".join(outcomes)
