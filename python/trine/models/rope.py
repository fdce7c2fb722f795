# SPDX-License-Identifier: Apache-2.0
"""Rotary position embeddings: frequencies, as transformers' modeling_rope_utils.py computes them.

Powers are taken in double and rounded once: that is nearest to torch's float32, and at long
positions the last bit of a frequency shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trine.models.config import require

if TYPE_CHECKING:
    from collections.abc import Callable

Float32 = NDArray[np.float32]

DEFAULT_THETA = 10000.0


@dataclass(frozen=True)
class Rope:
    """How positions turn pairs of columns.

    Attributes
    ----------
    inv_freq : angle of each pair for one position, float32 [head_dim / 2].
    scaling : what cosines and sines are multiplied with.
    long_inv_freq : in place of ``inv_freq`` for sequences longer than ``length``, if not None.
    length : tokens up to which ``inv_freq`` holds; 0 for any number.
    theta, factor : with a ``factor``, frequencies of a sequence of n > ``length`` tokens are those
        of the base theta * (factor * n / length - (factor - 1)) ^ (d / (d - 2)): dynamic NTK.
    """

    inv_freq: Float32
    scaling: float = 1.0
    long_inv_freq: Float32 | None = None
    length: int = 0
    theta: float = 0.0
    factor: float = 0.0

    def at(self, tokens: int) -> Float32:
        """Frequencies for a sequence of this length."""
        if not self.length or tokens <= self.length:
            return self.inv_freq
        if self.long_inv_freq is not None:
            return self.long_inv_freq
        dim = 2 * len(self.inv_freq)
        stretch = self.factor * tokens / self.length - (self.factor - 1)
        return _frequencies(self.theta * stretch ** (dim / (dim - 2)), dim)

    def attributes(self) -> dict[str, Any]:
        """The same as keywords of ``nn.rotary``."""
        long = None if self.long_inv_freq is None else self.long_inv_freq.tolist()
        return {
            "inv_freq": self.inv_freq.tolist(),
            "scaling": self.scaling,
            "long_inv_freq": long,
            "original_length": self.length,
            "base": self.theta,
            "factor": self.factor,
        }


def parameters(config: dict[str, Any]) -> dict[str, Any]:
    """Merge the spellings of transformers 4 and 5: ``rope_scaling`` goes before the other."""
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    require(isinstance(found, dict), f"rope_parameters must be an object, but is {found!r}")
    nested = sorted(key for key, value in found.items() if isinstance(value, dict))
    require(not nested, f"rope_parameters for each type of layer ({nested}) are not known")
    merged = {key: value for key, value in found.items() if value is not None}
    merged.setdefault("rope_type", merged.get("type", "default"))
    merged.setdefault("rope_theta", config.get("rope_theta") or DEFAULT_THETA)
    outside = config.get("original_max_position_embeddings")
    if outside is not None:  # as Phi-3 writes it
        merged["original_max_position_embeddings"] = outside
    partial = merged.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    require(partial in (None, 1, 1.0), f"partial_rotary_factor is {partial!r}; only 1 is known")
    return merged


def read(config: dict[str, Any], head_dim: int, max_positions: int) -> Rope:
    """Make the frequencies that ``config.json`` asks for."""
    require(head_dim % 2 == 0, f"head_dim must be even, but is {head_dim}")
    fields = parameters(config)
    kind = fields["rope_type"]
    require(
        isinstance(kind, str) and kind in _KINDS,
        f"rope_type {kind!r} is not known; known are {', '.join(_KINDS)}",
    )
    fields.setdefault("original_max_position_embeddings", max_positions)
    return _KINDS[kind](_Fields(fields, kind), head_dim, max_positions)


class _Fields:
    """Numbers among the parameters; one that is missing or no number is a ``ModelError``."""

    def __init__(self, values: dict[str, Any], kind: str) -> None:
        self.values, self.kind = values, kind
        self.theta = self.number("rope_theta")

    def number(self, name: str, default: float | None = None) -> float:
        value = self.values.get(name, default)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
        fits = 0 < number < math.inf
        require(fits, f"rope_parameters: {self.kind} needs {name} above 0, but it is {value!r}")
        return float(number)

    def optional(self, name: str) -> float | None:
        return self.number(name) if name in self.values else None

    def numbers(self, name: str, count: int) -> NDArray[np.float64]:
        value = self.values.get(name)
        fits = isinstance(value, list) and len(value) == count
        fits = fits and all(isinstance(x, int | float) and x > 0 for x in value)  # type: ignore[union-attr]
        require(fits, f"rope_parameters: {self.kind} needs {name}, {count} numbers above 0")
        return np.array(value, np.float32).astype(np.float64)

    @property
    def original(self) -> int:
        return int(self.number("original_max_position_embeddings"))


def _powers(theta: float, dim: int) -> Float32:
    """Return theta ^ (2 i / dim), the wavelengths over 2 pi."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers: NDArray[np.float64] = float(np.float32(theta)) ** exponents.astype(np.float64)
    return powers.astype(np.float32)


def _frequencies(theta: float, dim: int) -> Float32:
    found: Float32 = np.float32(1) / _powers(theta, dim)
    return found


def _default(fields: _Fields, dim: int, _max_positions: int) -> Rope:
    return Rope(_frequencies(fields.theta, dim))


def _factors(fields: _Fields, dim: int, _max_positions: int) -> Rope:
    """A divisor for each frequency: how GGUF files write down any type that depends on them."""
    factors = fields.numbers("factors", dim // 2).astype(np.float32)
    return Rope(_frequencies(fields.theta, dim) / factors)


def _linear(fields: _Fields, dim: int, _max_positions: int) -> Rope:
    return Rope(_frequencies(fields.theta, dim) / np.float32(fields.number("factor")))


def _dynamic(fields: _Fields, dim: int, max_positions: int) -> Rope:
    require(dim > 2, "rope_parameters: dynamic needs a head_dim above 2")
    factor = fields.number("factor")
    inv_freq = _frequencies(fields.theta, dim)
    return Rope(inv_freq, length=max_positions, theta=fields.theta, factor=factor)


def _llama3(fields: _Fields, dim: int, _max_positions: int) -> Rope:
    """Llama 3.1: long waves are stretched by the factor, short ones kept, those between mixed."""
    inv_freq = _frequencies(fields.theta, dim)
    factor, original = np.float32(fields.number("factor")), fields.original
    low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
    require(high != low, "rope_parameters: low_freq_factor and high_freq_factor are the same")
    # A number over a tensor is, in torch, the number times the reciprocal.
    wavelength = 1 / inv_freq * np.float32(2 * math.pi)
    long, short = wavelength > np.float32(original / low), wavelength < np.float32(original / high)
    found = np.where(long, inv_freq / factor, inv_freq)
    smooth = (1 / wavelength * np.float32(original) - np.float32(low)) / np.float32(high - low)
    mixed = (1 - smooth) * found / factor + smooth * found
    return Rope(np.where(long | short, found, mixed).astype(np.float32))


def _yarn(fields: _Fields, dim: int, max_positions: int) -> Rope:
    """YaRN (Peng et al. 2023): mixes by how often a pair turns within the original length."""
    original = fields.original
    factor = fields.optional("factor") or max_positions / original
    scaling = fields.optional("attention_factor")
    if scaling is None:
        ours, theirs = (fields.optional(name) for name in ("mscale", "mscale_all_dim"))
        scaling = _mscale(factor)
        if ours and theirs:
            scaling = _mscale(factor, ours) / _mscale(factor, theirs)

    require(fields.theta != 1, "rope_parameters: yarn needs a rope_theta other than 1")

    def turns_at(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(fields.theta))

    low, high = turns_at(fields.number("beta_fast", 32)), turns_at(fields.number("beta_slow", 1))
    if fields.values.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high += 0.001 if low == high else 0
    places = np.arange(dim // 2, dtype=np.float32)
    ramp = np.clip((places - np.float32(low)) / np.float32(high - low), 0, 1)
    powers = _powers(fields.theta, dim)
    kept = 1 - ramp
    inv_freq = 1 / (np.float32(factor) * powers) * (1 - kept) + 1 / powers * kept
    return Rope(inv_freq.astype(np.float32), scaling)


def _mscale(factor: float, weight: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(fields: _Fields, dim: int, max_positions: int) -> Rope:
    """LongRoPE (Ding et al. 2024): factors for sequences up to a length, and beyond."""
    original = fields.original
    factor = fields.optional("factor") or max_positions / original
    scaling = fields.optional("attention_factor")
    if scaling is None:
        require(original > 1 or factor <= 1, "original_max_position_embeddings must exceed 1")
        scaling = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    powers = _powers(fields.theta, dim)
    short, long = (
        (1 / (fields.numbers(name, dim // 2).astype(np.float32) * powers)).astype(np.float32)
        for name in ("short_factor", "long_factor")
    )
    return Rope(short, scaling, long_inv_freq=long, length=original)


_KINDS: dict[str, Callable[[_Fields, int, int], Rope]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "factors": _factors,
    "su": _longrope,  # its name in the first Phi-3 files
}
