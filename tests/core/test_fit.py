"""The training loop: what it learns and logs, how it resumes, and what it refuses."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.core.fit import CHECKPOINT, LearningRate, Loss, Objective, Schedule, fit

LR = LearningRate(0.2, final_fraction=0.1)


def numbers_from(step: int) -> Iterator[Tensor]:
    """Endless batches of 16 numbers, beginning with that of ``step``."""
    while True:
        yield torch.randn(16, 1, generator=torch.Generator().manual_seed(step))
        step += 1


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def rows_without_speed(directory: Path) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if name != "line_per_s"} for row in rows(directory)]


def line_fit(
    directory: Path,
    steps: int = 60,
    poison: int | None = None,
    stop_at: int | None = None,
    identity: str = "y = 2 x - 1",
    explode: int | None = None,
) -> nn.Linear:
    """Fit y = 2 x - 1.

    poison: a step whose loss is NaN; stop_at: a step during which a signal comes; explode: a step whose loss is finite
    and whose gradient is not.
    """
    torch.manual_seed(0)
    module = nn.Linear(1, 1)

    def loss(x: Tensor, step: int) -> Loss:
        if step == stop_at:
            interrupt._received = 15
        error = (module(x) - (2 * x - 1)).square().mean()
        if step == explode:
            error = error + (module.weight * 0).sum().sqrt()  # the slope of a root at zero is infinite
        return error * (math.nan if step == poison else 1.0), {"error": error.detach()}

    objectives = [Objective("line", module, loss, ("error",), LR, clip=1.0)]
    try:
        fit("line", objectives, numbers_from, Schedule(steps), directory, 16, identity)
    finally:
        interrupt._received = None
    return module


def test_it_trains_and_logs_every_twenty_steps(tmp_path: Path) -> None:
    module = line_fit(tmp_path, steps=130)
    assert module.weight.item() == pytest.approx(2, abs=0.05) and module.bias.item() == pytest.approx(-1, abs=0.05)
    logged = rows(tmp_path)
    assert [row["step"] for row in logged] == ["20", "40", "60", "80", "100", "120", "130"]
    assert list(logged[0]) == ["step", "error", "loss", "lr", "line_per_s"]
    assert float(logged[-1]["loss"]) < 0.01 < float(logged[0]["loss"])
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_step_is_one_of_adam_with_clipped_gradients_and_the_schedules_learning_rate(tmp_path: Path) -> None:
    found = line_fit(tmp_path, steps=7)
    torch.manual_seed(0)
    weights = torch.cat([one.detach().double().flatten() for one in nn.Linear(1, 1).parameters()])
    mean, square = torch.zeros(2).double(), torch.zeros(2).double()
    for step, x in zip(range(7), numbers_from(0), strict=False):
        x = x.double()
        error = weights[0] * x + weights[1] - (2 * x - 1)
        gradient = torch.stack([2 * (error * x).mean(), 2 * error.mean()]).clamp(-1, 1)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        size = (mean / (1 - 0.9 ** (step + 1))) / ((square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        weights = weights - 0.2 * (step + 1) / 20 * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 7)) / 2) * size
    assert [found.weight.item(), found.bias.item()] == pytest.approx(weights.tolist(), rel=1e-5)


def test_a_signal_saves_the_finished_step_and_the_same_call_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    wanted = line_fit(tmp_path / "whole")
    with pytest.raises(interrupt.Interrupted) as stop:
        line_fit(tmp_path / "cut", stop_at=33)
    assert stop.value.exit_code == 143 and (tmp_path / "cut" / CHECKPOINT).exists()
    found = line_fit(tmp_path / "cut")
    for mine, theirs in zip(found.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert rows_without_speed(tmp_path / "whole") == rows_without_speed(tmp_path / "cut")


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    with pytest.raises(interrupt.Interrupted):
        line_fit(tmp_path, stop_at=9)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(UserError, match=r"line: the loss became nan at step 11; the weights before are kept in .*lr"):
        line_fit(tmp_path, poison=11)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    again, wanted = line_fit(tmp_path), line_fit(tmp_path / "undisturbed")
    assert torch.equal(again.weight, wanted.weight)


def test_a_loss_that_is_not_finite_before_the_first_checkpoint_names_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"became nan at step 3; look for broken frames, .*lower --line.lr"):
        line_fit(tmp_path, poison=3)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line: step 9 made weights that are not finite"):
        line_fit(tmp_path, steps=10, explode=9)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(interrupt.Interrupted):
        line_fit(tmp_path, stop_at=3)
    module = nn.Linear(2, 2)
    objective = Objective("other", module, lambda *_: (module.weight.sum(), {}), (), LR)
    with pytest.raises(UserError, match="does not belong to this stage"):
        fit("other", [objective], numbers_from, Schedule(5), tmp_path, 1, "y = 2 x - 1")


def test_a_checkpoint_with_another_identity_is_refused_though_its_tensors_fit(tmp_path: Path) -> None:
    with pytest.raises(interrupt.Interrupted):
        line_fit(tmp_path, stop_at=3)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(UserError, match=r"checkpoint.safetensors does not belong to this stage; delete it and run"):
        line_fit(tmp_path, identity="y = 3 x - 1")
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    line_fit(tmp_path)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    lr = LearningRate(0.1, final_fraction=0.01, warmup=20)
    rates = [lr.at(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1 / 20, rel=1e-3) and max(rates) == pytest.approx(0.1, rel=0.01)
    assert rates.index(max(rates)) == 19 and rates[19:] == sorted(rates[19:], reverse=True)
    assert rates[500] == pytest.approx(0.1 * (0.01 + 0.99 / 2), rel=1e-6)
    assert rates[-1] == pytest.approx(0.001, rel=0.01)


# --- several objectives --------------------------------------------------------------------------------------


class Duel:
    """A generator that imitates numbers around 3 and a discriminator that tells them apart, as a GAN trains them.

    killed_at: a step in which the process dies after the discriminator has learnt and before the generator has.
    """

    def __init__(self, killed_at: int | None = None, stop_at: int | None = None) -> None:
        torch.manual_seed(1)
        self.generator = nn.Linear(1, 1)
        self.discriminator = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
        self._killed_at, self._stop_at = killed_at, stop_at

    def objectives(self) -> list[Objective[Tensor]]:
        betas = (0.5, 0.999)
        return [
            Objective("discriminator", self.discriminator, self.tell_apart, ("real", "fake"), LR, betas=betas),
            Objective("generator", self.generator, self.deceive, ("deceived",), LearningRate(0.05, 0.5), betas=betas),
        ]

    def tell_apart(self, x: Tensor, step: int) -> Loss:
        # Nothing is detached, so that gradients would reach the generator if the loop let them.
        real = nn.functional.softplus(-self.discriminator(3 + 0.5 * x)).mean()
        fake = nn.functional.softplus(self.discriminator(self.generator(x))).mean()
        return real + fake, {"real": real, "fake": fake}

    def deceive(self, x: Tensor, step: int) -> Loss:
        if step == self._killed_at:
            raise RuntimeError("killed")
        if step == self._stop_at:
            interrupt._received = 15
        deceived = nn.functional.softplus(-self.discriminator(self.generator(x))).mean()
        return deceived, {"deceived": deceived}

    def fit(self, directory: Path, steps: int = 50, checkpoint_seconds: float = 0.0) -> None:
        try:
            schedule = Schedule(steps, checkpoint_seconds)
            fit("duel", self.objectives(), numbers_from, schedule, directory, 16, "duel")
        finally:
            interrupt._received = None

    def tensors(self) -> dict[str, Tensor]:
        return {**self.generator.state_dict(), **{f"d.{k}": v for k, v in self.discriminator.state_dict().items()}}


def assert_equal(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    for name, value in some.items():
        assert torch.equal(value, others[name]), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_training_on_a_gpu_resumes(tmp_path: Path) -> None:
    def on_the_gpu(directory: Path, stop_at: int | None) -> nn.Linear:
        duel = Duel(stop_at=stop_at)
        duel.generator.cuda(), duel.discriminator.cuda()

        def batches(step: int) -> Iterator[Tensor]:
            return (x.cuda() for x in numbers_from(step))

        try:
            fit("duel", duel.objectives(), batches, Schedule(12), directory, 16, "duel")
        finally:
            interrupt._received = None
        return duel.generator

    wanted = on_the_gpu(tmp_path / "whole", None)
    with pytest.raises(interrupt.Interrupted):
        on_the_gpu(tmp_path / "cut", 6)
    found = on_the_gpu(tmp_path / "cut", None)
    torch.testing.assert_close(found.state_dict(), wanted.state_dict())


@pytest.mark.parametrize("how", ["killed between the two", "killed at a checkpoint", "stopped by a signal"])
def test_two_objectives_resume_to_the_bit(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Duel()
    whole.fit(tmp_path / "whole")
    cut = tmp_path / "cut"
    if how == "killed between the two":
        with pytest.raises(RuntimeError, match="killed"):
            Duel(killed_at=31).fit(cut)
    elif how == "stopped by a signal":
        with pytest.raises(interrupt.Interrupted):
            Duel(stop_at=30).fit(cut, checkpoint_seconds=60)
    else:
        import worldmodels.core.fit as module

        saves, save = iter(range(100)), module.save_tensors

        def dying(*arguments: object) -> None:
            if next(saves) == 31:
                raise RuntimeError("killed")
            save(*arguments)  # type: ignore[arg-type]

        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            patch.setattr(module, "save_tensors", dying)
            Duel().fit(cut)
    assert load_tensors(cut / CHECKPOINT)[1]["step"] == 31
    again = Duel()
    again.fit(cut)
    assert_equal(again.tensors(), whole.tensors())
    assert_equal(load_tensors(cut / CHECKPOINT)[0], load_tensors(tmp_path / "whole" / CHECKPOINT)[0])
    columns = ("step", "real", "fake", "deceived", "loss", "lr")
    logged = [[{name: row[name] for name in columns} for row in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert logged[0] == logged[1]


def test_the_metrics_of_two_objectives_are_all_their_parts_and_the_sum_of_their_losses(tmp_path: Path) -> None:
    Duel().fit(tmp_path, checkpoint_seconds=60)
    for row in rows(tmp_path):
        assert list(row) == ["step", "real", "fake", "deceived", "loss", "lr", "duel_per_s"]
        parts = float(row["real"]) + float(row["fake"]) + float(row["deceived"])
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-6)
        assert float(row["lr"]) == LR.at(int(row["step"]) - 1, 50)


def test_gradients_of_one_objective_do_not_leak_into_the_other(tmp_path: Path) -> None:
    duel = Duel()
    duel.fit(tmp_path, steps=12, checkpoint_seconds=60)
    # The same by hand, one objective and one fresh gradient at a time.
    hand = Duel()
    sides = [
        (hand.discriminator, hand.tell_apart, LR),
        (hand.generator, hand.deceive, LearningRate(0.05, 0.5)),
    ]
    adams = [torch.optim.Adam(module.parameters(), betas=(0.5, 0.999), fused=True) for module, _, _ in sides]
    for step, x in zip(range(12), numbers_from(0), strict=False):
        for (module, loss, lr), adam in zip(sides, adams, strict=True):
            gradients = torch.autograd.grad(loss(x, step)[0], list(module.parameters()))
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.grad = gradient
            adam.param_groups[0]["lr"] = lr.at(step, 12)
            adam.step()
    assert_equal(duel.tensors(), hand.tensors())


def test_an_objective_whose_loss_leads_through_another_module_leaves_that_module_alone(tmp_path: Path) -> None:
    duel = Duel()
    before = {name: value.clone() for name, value in duel.generator.state_dict().items()}
    fit("half", duel.objectives()[:1], numbers_from, Schedule(5), tmp_path, 16, "half")
    assert all(parameter.grad is None for parameter in duel.generator.parameters())
    assert_equal(dict(duel.generator.state_dict()), before)
    assert all(parameter.grad is not None for parameter in duel.discriminator.parameters())


def test_a_loss_without_a_gradient_leaves_weights_and_moments_as_they_are_in_that_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, seen = nn.Linear(1, 1), list[float]()

    def loss(x: Tensor, step: int) -> Loss:
        seen.append(module.weight.item())
        error = (module(x) - 2 * x).square().mean()
        return error.detach() if step in (0, 3, 4) else error, {"error": error.detach()}

    fit("line", [Objective("line", module, loss, ("error",), LR)], numbers_from, Schedule(7), tmp_path, 16, "")
    moved = [after != before for before, after in zip(seen, [*seen[1:], module.weight.item()], strict=True)]
    assert moved == [False, True, True, False, False, True, True]
    assert load_tensors(tmp_path / CHECKPOINT)[0]["line/adam/step/weight"] == 4
    assert len(rows(tmp_path)) == 1 and float(rows(tmp_path)[0]["loss"]) > 0


def test_of_several_losses_the_one_that_is_not_finite_is_named(tmp_path: Path) -> None:
    duel = Duel()
    discriminator, generator = duel.objectives()
    poisoned = Objective("generator", duel.generator, lambda x, step: (duel.deceive(x, step)[0] / 0, {}), (), LR)
    with pytest.raises(UserError, match="duel: the generator loss became inf at step 0"):
        fit("duel", [discriminator, poisoned], numbers_from, Schedule(5), tmp_path, 16, "duel")
    assert generator.name == poisoned.name and not (tmp_path / CHECKPOINT).exists()


def test_a_weight_that_no_loss_leads_to_stays_as_it_is_and_does_not_hinder_a_resume(tmp_path: Path) -> None:
    def half_used(directory: Path, stop_at: int | None = None) -> nn.ParameterDict:
        module = nn.ParameterDict({"used": torch.ones(3), "unused": torch.ones(3)})

        def loss(x: Tensor, step: int) -> Loss:
            if step == stop_at:
                interrupt._received = 15
            return (module["used"] - x.mean()).square().sum(), {}

        try:
            fit("half", [Objective("half", module, loss, (), LR)], numbers_from, Schedule(8), directory, 16, "half")
        finally:
            interrupt._received = None
        return module

    wanted = half_used(tmp_path / "whole")
    with pytest.raises(interrupt.Interrupted):
        half_used(tmp_path / "cut", stop_at=4)
    found = half_used(tmp_path / "cut")
    assert torch.equal(found["used"], wanted["used"]) and (found["used"] != 1).all()
    assert (found["unused"] == 1).all()
