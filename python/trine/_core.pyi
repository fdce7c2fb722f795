# SPDX-License-Identifier: Apache-2.0
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

__version__: str

class Error(Exception): ...
class ModelError(Error): ...
class InputError(Error, ValueError): ...
class DeviceError(Error): ...

class ProfileStep(TypedDict):
    op: str
    name: str
    dtype: str
    ms: float
    flops: float
    bytes: float

class NodeComparison(TypedDict):
    node: int
    op: str
    name: str
    max_abs_difference: float
    max_abs_reference: float

class GeneratedToken(TypedDict):
    sequence: int
    token: int
    logprob: float
    top: list[tuple[int, float]]
    finish: Literal["stop", "length", "nan"] | None

class SessionInfo(TypedDict):
    sequences: int
    active: int
    tokens: int
    cache_bytes: int

class WeightStore:
    def __init__(self, files: Sequence[tuple[str | os.PathLike[str], str]]) -> None: ...
    @staticmethod
    def open_gguf(
        path: str | os.PathLike[str], names: Sequence[tuple[str, str, int]]
    ) -> WeightStore: ...
    def names(self) -> list[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def dtype(self, name: str) -> str: ...
    def read(self, name: str) -> bytes: ...
    def floats(self, name: str) -> NDArray[np.float32]: ...
    @property
    def bytes_mapped(self) -> int: ...

class Graph:
    def __init__(self, weights: WeightStore) -> None: ...
    def add(
        self,
        op: str,
        inputs: Sequence[int],
        attrs: Mapping[str, Any],
        name: str = "",
        source: str = "",
    ) -> int: ...
    def add_constant(
        self, values: Sequence[float], dims: Sequence[int], name: str = "", source: str = ""
    ) -> int: ...
    def add_output(self, name: str, node: int) -> None: ...
    def shape(self, node: int) -> tuple[int | str, ...]: ...
    def has_weight(self, name: str) -> bool: ...
    def ignore(self, name: str) -> None: ...
    def dump(self) -> str: ...
    @property
    def outputs(self) -> list[str]: ...

class Model:
    def run(
        self,
        ids: NDArray[np.int32],
        offsets: NDArray[np.int32],
        *,
        token_types: NDArray[np.int32] | None = None,
        prompt_lengths: NDArray[np.int32] | None = None,
        outputs: Sequence[str],
    ) -> dict[str, NDArray[np.float32]]: ...
    def prepare(self, outputs: Sequence[str]) -> None: ...
    def profile(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int32], outputs: Sequence[str]
    ) -> list[ProfileStep]: ...
    def dump(self, outputs: Sequence[str]) -> str: ...
    def info(self) -> dict[str, Any]: ...
    @property
    def outputs(self) -> dict[str, tuple[Literal["tokens", "sequences"], int]]: ...
    def close(self) -> None: ...

class Session:
    def __init__(
        self,
        model: Model,
        *,
        capacity: int,
        output: str = "next_logits",
        prefill_tokens: int = 512,
    ) -> None: ...
    def add(
        self,
        prompt: NDArray[np.int32],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        min_new_tokens: int = 0,
        logprobs: int = -1,
        seed: int = 0,
        end_tokens: Sequence[int] = (),
        prefix: int | None = None,
    ) -> int: ...
    def step(self) -> list[GeneratedToken]: ...
    def remove(self, sequence: int) -> None: ...
    def tokens(self, sequence: int) -> list[int]: ...
    def info(self) -> SessionInfo: ...
    @property
    def active(self) -> int: ...

def compile(  # noqa: A001
    graph: Graph, device: str, dtype: str, threads: int, plugin: str = ""
) -> Model: ...
def compare(
    graph: Graph,
    ids: NDArray[np.int32],
    offsets: NDArray[np.int32],
    outputs: Sequence[str],
    threads: int,
    dtype: str = "float32",
    device: str = "cpu",
    plugin: str = "",
) -> list[NodeComparison]: ...
def default_dtype(device: str = "cpu", plugin: str = "") -> str: ...
def plugin_devices(plugin: str) -> int: ...
def read_gguf(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], list[tuple[str, str, tuple[int, ...]]]]: ...
def activation(name: str) -> str: ...
def ops() -> list[tuple[str, str, str]]: ...
def isas() -> list[str]: ...
def isa() -> str: ...
def peak_gflops(threads: int = 1, dtype: str = "float32") -> float: ...
def read_bandwidth(threads: int = 1) -> float: ...
