# SPDX-License-Identifier: Apache-2.0
"""Compiled files on GPUs: what the folder gives there, from Python and from C."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trine

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DTYPES = ["float32", "bfloat16", "int8", "int4"]
FOLDERS = [
    "heads/masked-lm",
    "heads/classify",
    "deberta/model",
    "deberta/model-v2",
    "deberta/rank",
    "llama/generate-bias",
]
# DeBERTa's position tables are bfloat16 in a file whose dtype is quantised, and float32 from a
# folder.
TABLES = 2e-2


def forward(model: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    lengths = np.array([20, 5, 1])
    mask = (np.arange(20) < lengths[:, None]).astype(np.int64)
    found: dict[str, Any] = model.forward(rng.integers(5, 60, mask.shape), mask)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_gives_what_its_folder_gives(
    device: Any, name: str, dtype: Any, tmp_path: Path
) -> None:
    file = tmp_path / "m.trine"
    with trine.load(GOLDEN / name, device="cpu", dtype=dtype) as cpu:
        cpu.save(file)
    with trine.load(GOLDEN / name, device=device, dtype=dtype) as folder:
        expected, there = forward(folder), folder.info()
    with trine.load(file, device=device) as mapped:
        got, info = forward(mapped), mapped.info()
    for key in ("device", "dtype", "parameters", "weight_bytes"):
        assert info[key] == there[key], key
    rounded = name.startswith("deberta") and dtype in ("int8", "int4")
    for output, want in expected.items():
        if rounded:
            assert np.linalg.norm(got[output] - want) <= TABLES * np.linalg.norm(want), output
        else:
            np.testing.assert_array_equal(got[output], want, err_msg=output)


def test_generation(device: Any, tmp_path: Path) -> None:
    prompts = [[5, 6, 7, 8, 9], [10, 3]]
    with trine.load(GOLDEN / "llama" / "generate", device="cpu", dtype="float32") as cpu:
        cpu.save(tmp_path / "m.trine")
        expected = [g.tokens for g in cpu.generate(prompts, max_new_tokens=8)]
    with trine.load(tmp_path / "m.trine", device=device) as gpu:
        assert [g.tokens for g in gpu.generate(prompts, max_new_tokens=8)] == expected


def test_a_file_has_one_dtype(device: Any, tmp_path: Path) -> None:
    with trine.load(GOLDEN / "heads" / "model", device="cpu", dtype="float32") as cpu:
        cpu.save(tmp_path / "m.trine")
    with pytest.raises(trine.InputError, match="is compiled in float32; for bfloat16 compile"):
        trine.load(tmp_path / "m.trine", device=device, dtype="bfloat16")
    with trine.load(tmp_path / "m.trine", device=device) as gpu:
        message = f"a model on device {device} cannot be saved"
        with pytest.raises(trine.DeviceError, match=message):
            gpu.save(tmp_path / "again.trine")


class Options(ctypes.Structure):
    """``trine_options`` of trine_c.h."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_int32),
        ("device", ctypes.c_char_p),
    ]


class Batch(ctypes.Structure):
    """``trine_batch`` of trine_c.h."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("ids", ctypes.POINTER(ctypes.c_int32)),
        ("offsets", ctypes.POINTER(ctypes.c_int32)),
        ("sequences", ctypes.c_size_t),
        ("token_types", ctypes.c_void_p),
        ("prompt_lengths", ctypes.c_void_p),
    ]


def c_library_file() -> Path:
    return next((Path(trine.cmake_prefix()) / "lib").glob("libtrine.*"))


def c_library(path: Path | None = None) -> Any:
    library = ctypes.CDLL(os.fspath(path or c_library_file()))
    for name in ("trine_model_load", "trine_model_run"):
        getattr(library, name).restype = ctypes.c_void_p  # an error, or NULL
    for name in ("trine_error_text", "trine_model_device", "trine_model_device_reason"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


def test_from_c(device: Any, tmp_path: Path) -> None:
    """The library of C++ programs runs a file on the device with the bits that Python gets."""
    file = tmp_path / "m.trine"
    with trine.load(GOLDEN / "heads" / "classify", device="cpu", dtype="float32") as cpu:
        cpu.save(file)
    with trine.load(file, device=device) as gpu:
        expected = gpu.forward([[5, 6, 7]])["logits"][0]
    library = c_library()
    model, path = ctypes.c_void_p(), os.fsencode(file)
    options = Options(ctypes.sizeof(Options), 1, device.encode())
    assert library.trine_model_load(path, ctypes.byref(options), ctypes.byref(model)) is None
    assert library.trine_model_device(model).decode() == device
    assert library.trine_model_device_reason(model) == b"asked for"
    ids, offsets = (ctypes.c_int32 * 3)(5, 6, 7), (ctypes.c_int32 * 2)(0, 3)
    batch = Batch(ctypes.sizeof(Batch), ids, offsets, 1, None, None)
    logits = (ctypes.c_float * len(expected))()
    names = (ctypes.c_char_p * 1)(b"logits")
    places = (ctypes.POINTER(ctypes.c_float) * 1)(logits)
    one = ctypes.c_size_t(1)
    assert library.trine_model_run(model, ctypes.byref(batch), names, one, places) is None
    np.testing.assert_array_equal(np.array(logits), expected)
    library.trine_model_free(model)

    # Without a word it is the device that Python takes, also for callers who know no such field.
    with trine.load(file, device="auto") as automatic:
        info = automatic.info()
    for size in (ctypes.sizeof(Options), Options.device.offset):
        options = Options(size, 1, None if size > Options.device.offset else b"tpu")
        assert library.trine_model_load(path, ctypes.byref(options), ctypes.byref(model)) is None
        assert library.trine_model_device(model).decode() == info["device"]
        assert library.trine_model_device_reason(model).decode() == info["device_reason"]
        library.trine_model_free(model)


def test_the_library_of_a_wheel_finds_the_packages_plugin(
    device: Any, is_emulated: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    """There it lies in trine/cpp/lib, and plugins in trine; elsewhere beside each other."""
    if not is_emulated:
        pytest.skip("a real plugin lies where it was installed")
    file = tmp_path / "m.trine"
    with trine.load(GOLDEN / "heads" / "model", device="cpu", dtype="float32") as cpu:
        cpu.save(file)
    plugin = next(Path(os.environ["TRINE_PLUGIN_PATH"]).glob(f"libtrine_{device}.*"))
    monkeypatch.delenv("TRINE_PLUGIN_PATH")
    options = Options(ctypes.sizeof(Options), 1, device.encode())
    for own, plugins, found in (
        ("wheel/cpp/lib", "wheel", True),
        ("prefix", "prefix", True),
        ("other/lib", "other", False),
    ):
        (tmp_path / own).mkdir(parents=True)
        library = c_library(Path(shutil.copy(c_library_file(), tmp_path / own / "libtrine.so")))
        shutil.copy(plugin, tmp_path / plugins)
        model = ctypes.c_void_p()
        error = library.trine_model_load(
            os.fsencode(file), ctypes.byref(options), ctypes.byref(model)
        )
        assert (error is None) == found, own
        if error is None:
            library.trine_model_free(model)


def test_a_device_that_is_not_there_from_c(tmp_path: Path, monkeypatch: Any) -> None:
    with trine.load(GOLDEN / "heads" / "model", device="cpu", dtype="float32") as cpu:
        cpu.save(tmp_path / "m.trine")
    monkeypatch.setenv("TRINE_PLUGIN_PATH", os.fspath(tmp_path))
    library, model = c_library(), ctypes.c_void_p()
    for name, expected in (("cuda:7", "no plugin libtrine_cuda"), ("tpu", 'no device "tpu"')):
        options = Options(ctypes.sizeof(Options), 1, name.encode())
        path = os.fsencode(tmp_path / "m.trine")
        error = library.trine_model_load(path, ctypes.byref(options), ctypes.byref(model))
        assert error is not None
        error = ctypes.c_void_p(error)
        assert library.trine_error_kind(error) == 3
        assert expected in library.trine_error_text(error).decode()
        library.trine_error_free(error)
