"""What results are made with is recorded, and what of it changes numbers is found again."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldmodels
from worldmodels.core import device
from worldmodels.core.cores import usable_cores
from worldmodels.core.device import fast_bfloat16, processor_features, torch_threads
from worldmodels.core.provenance import differences, provenance, versions

CPU = torch.device("cpu")


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Sets the words of /proc/cpuinfo."""

    def choose(*words: str) -> None:
        (tmp_path / "cpuinfo").write_text("flags : " + " ".join(words))
        monkeypatch.setattr(device, "Path", lambda name: tmp_path / "cpuinfo")
        device._processor_flags.cache_clear()

    yield choose
    device._processor_flags.cache_clear()


def test_a_record_says_with_which_versions_processor_and_device() -> None:
    with torch_threads(1):
        record = provenance(CPU, ["envpool", "Box2D", "no_such_module"])
    assert json.loads(json.dumps(record)) == record
    assert record["versions"]["worldmodels"] == worldmodels.__version__
    assert record["versions"]["torch"] == torch.__version__ and record["versions"]["numpy"] == np.__version__
    assert {"python", "gymnasium", "envpool", "box2d"} <= record["versions"].keys()
    assert "no_such_module" not in record["versions"]
    assert (record["device"], record["gpu"], record["torch_threads"]) == ("cpu", None, 1)
    assert record["cores"] == usable_cores() <= (os.cpu_count() or 1)
    assert record["cpu"] and record["platform"] and record["cpu_features"] == list(processor_features())
    assert record["dtype"] == ("bfloat16" if fast_bfloat16(CPU) else "float32")


def test_a_package_is_found_by_a_module_of_another_name() -> None:
    assert "pygame-ce" in versions(["pygame"])


def test_a_record_differs_in_what_changes_numbers_and_in_nothing_else() -> None:
    before = provenance(CPU, ["envpool"])
    assert differences(before, before) == []
    harmless = {"platform": "Other", "cores": 64, "versions": before["versions"] | {"python": "3.99"}}
    assert differences(before, before | harmless) == []
    now = before | {"torch_threads": 77, "gpu": "H100", "cpu_features": ["AVX2"]}
    now["versions"] = {name: text for name, text in before["versions"].items() if name != "envpool"}
    assert differences(before, now) == [
        "gpu none, now H100",
        f"cpu_features {' '.join(before['cpu_features'])}, now AVX2",
        f"torch_threads {before['torch_threads']}, now 77",
        f"envpool {before['versions']['envpool']}, now none",
    ]


def test_the_instructions_of_the_processor_decide_on_bfloat16_and_are_recorded(flags: Any) -> None:
    flags("sse2", "avx2", "avx512_bf16", "avx512f")
    assert fast_bfloat16(CPU) and processor_features()[1:] == ("avx2", "avx512_bf16", "avx512f")
    flags("GenuineIntel", "avx512_bf16", "amx_bf16")
    assert fast_bfloat16(CPU)
    flags("GenuineIntel", "avx512_bf16")  # one unit for bfloat16 products, two for those in float32
    assert not fast_bfloat16(CPU) and "avx512_bf16" in processor_features()
    flags("sse2", "avx2")
    assert not fast_bfloat16(CPU) and processor_features()[1:] == ("avx2",)
    assert processor_features()[0] == torch.backends.cpu.get_cpu_capability()


def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert not fast_bfloat16(torch.device("cuda"))
