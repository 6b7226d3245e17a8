"""Where and in which numbers a model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cmp.engine.device import choose_device, choose_dtype, fits, without_memory
from cmp.errors import BadInput

CARD = torch.device("cuda")


def test_a_processor_computes_in_full_precision_whatever_the_model(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    assert choose_dtype(torch.device("cpu"), tmp_path) == choose_dtype(torch.device("mps"), tmp_path) == torch.float32


def test_transformers_get_the_type_that_holds_their_large_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    (tmp_path / "unet").mkdir()
    assert choose_dtype(CARD, tmp_path) == torch.float16
    (tmp_path / "transformer").mkdir()
    assert choose_dtype(CARD, tmp_path) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert choose_dtype(CARD, tmp_path) == torch.float16


def test_a_model_that_would_leave_no_room_to_draw_visits_the_card_part_by_part() -> None:
    assert fits(3_000_000_000, 8_000_000_000) and not fits(7_000_000_000, 8_000_000_000)


def test_a_device_that_is_not_there_is_refused_and_quoted() -> None:
    with pytest.raises(BadInput, match="cuda:99"):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    ("fault", "ran_out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of range"), False),
    ],
    ids=lambda one: str(one)[:40],
)
def test_memory_that_ran_out_is_known_by_what_torch_and_cudas_libraries_say(fault: Exception, ran_out: bool) -> None:
    assert without_memory(fault) == ran_out
