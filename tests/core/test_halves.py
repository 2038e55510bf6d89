"""Losses that are computed in parts at the same time."""

import pytest
import torch
from torch import Tensor

from worldmodels.core.fit import Loss
from worldmodels.core.halves import Halves


def weights() -> list[Tensor]:
    stream = torch.Generator().manual_seed(1)
    shapes = [(4, 3), (3,), (2,)]
    return [torch.randn(shape, generator=stream, dtype=torch.float64, requires_grad=True) for shape in shapes]


def loss_of(first: Tensor, second: Tensor, rows: Tensor) -> Loss:
    parts = {"sine": torch.sin(rows @ first).sum(), "square": (rows @ first + second).square().sum()}
    return parts["sine"] + parts["square"], parts


def test_the_sum_of_the_parts_is_the_loss_of_the_whole_with_its_gradient() -> None:
    first, second, unused = weights()
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected, expected_parts = loss_of(first, second, rows)
    expected_gradients = torch.autograd.grad(3 * expected, [first, second])
    halves = Halves([first, second, unused])
    total, parts = halves.sum([lambda: loss_of(first, second, rows[::2]), lambda: loss_of(first, second, rows[1::2])])
    gradients = torch.autograd.grad(3 * total, [first, second, unused], allow_unused=True)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(parts, expected_parts)
    assert not any(part.requires_grad for part in parts.values())
    torch.testing.assert_close(gradients[:2], expected_gradients)
    assert gradients[2] is None


def test_one_part_alone_is_the_loss_itself() -> None:
    first, second, _ = weights()
    rows = torch.ones(1, 4, dtype=torch.float64)
    total, _ = Halves([first, second]).sum([lambda: loss_of(first, second, rows)])
    assert total == loss_of(first, second, rows)[0]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_either_part_arrives_after_both_have_ended(failing: int) -> None:
    first, second, _ = weights()
    rows, ended = torch.ones(2, 4, dtype=torch.float64), []

    def part(index: int) -> Loss:
        ended.append(index)
        if index == failing:
            raise ValueError(f"part {index}")
        return loss_of(first, second, rows)

    with pytest.raises(ValueError, match=f"part {failing}"):
        Halves([first, second]).sum([lambda: part(0), lambda: part(1)])
    assert sorted(ended) == [0, 1]


def test_each_part_has_half_of_the_threads_and_the_caller_keeps_its_own() -> None:
    first, second, _ = weights()
    rows, seen, before = torch.ones(2, 4, dtype=torch.float64), [], torch.get_num_threads()

    def part() -> Loss:
        seen.append(torch.get_num_threads())
        return loss_of(first, second, rows)

    try:
        for threads in (4, 2, 1):
            torch.set_num_threads(threads)
            halves = Halves([first, second])
            halves.sum([part, part])
            halves.sum([part, part])
            assert torch.get_num_threads() == threads
            assert seen[-4:] == [max(1, threads // 2)] * 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 3])
def test_other_numbers_of_parts_are_refused(count: int) -> None:
    first, second, _ = weights()
    with pytest.raises(ValueError, match=f"expected 1 to 2 losses, got {count}"):
        Halves([first, second]).sum([lambda: loss_of(first, second, torch.ones(2, 4))] * count)
