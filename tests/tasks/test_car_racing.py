"""CarRacing: its frames, its actions, its explorers, and its two backends beside each other."""

from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

from worldmodels.core.errors import UserError
from worldmodels.core.seeds import row_seeds
from worldmodels.execution import envpool_env
from worldmodels.execution.environments import make_envs
from worldmodels.execution.envpool_env import EnvPoolVectorEnv
from worldmodels.rollouts import rollout
from worldmodels.tasks import get_task, task_names
from worldmodels.tasks.base import Observations, playing_of
from worldmodels.tasks.car_racing.explorers import _road_offset, _speed
from worldmodels.tasks.car_racing.road_follower import RoadFollower, speed, way
from worldmodels.tasks.car_racing.task import CarRacing

TASK = CarRacing()
ROAD, GRASS, BAR = (105, 105, 105), (100, 202, 100), (0, 0, 0)


# --- frames --------------------------------------------------------------------------------------------------


def weights(size: int, target: int) -> np.ndarray:
    """(target, size) weights of an antialiased bilinear filter: a triangle as wide as two target pixels."""
    scale = size / target
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / scale
    triangle = np.maximum(0.0, 1 - distance)
    return triangle / triangle.sum(axis=1, keepdims=True)


def test_frames_are_the_picture_without_its_bar_shrunk_by_an_antialiasing_filter() -> None:
    observations = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    frames = TASK.frames(observations)
    picture = observations[:, :84].astype(np.float64)
    wanted = np.einsum("yi,xj,nijc->nyxc", weights(84, 64), weights(96, 64), picture)
    assert frames.shape == (3, 64, 64, 3) and frames.dtype == np.uint8 and frames.flags.c_contiguous
    difference = np.abs(frames - wanted)
    assert difference.max() < 1.5 and difference.mean() < 0.5  # it rounds after each of its two passes


def test_the_bar_never_reaches_a_frame() -> None:
    observations = np.random.default_rng(2).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    before = TASK.frames(observations)
    observations[:, 84:] = 255 - observations[:, 84:]
    assert np.array_equal(TASK.frames(observations), before)
    observations[:, 83] = 255 - observations[:, 83]
    changed = (TASK.frames(observations) != before).any(axis=(0, 2, 3))
    assert changed[-1] and not changed[:-2].any()


def test_golden_pixels_of_a_stripe_and_of_plain_colours() -> None:
    plain = np.tile(np.array([102, 204, 51], np.uint8), (1, 96, 96, 1))
    assert (TASK.frames(plain) == [102, 204, 51]).all()
    stripe = np.zeros((1, 96, 96, 3), np.uint8)
    stripe[:, :, 48] = 240  # one column: two thirds of a frame's pixel, shared by two
    assert TASK.frames(stripe)[0, 10, 29:36, 0].tolist() == [0, 0, 27, 133, 0, 0, 0]


def test_no_observation_is_changed_and_single_rows_equal_the_batch() -> None:
    observations = np.random.default_rng(3).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    before = observations.copy()
    frames = TASK.frames(observations)
    assert np.array_equal(observations, before)
    for row in range(4):
        assert np.array_equal(TASK.frames(observations[row : row + 1])[0], frames[row])


# --- actions -------------------------------------------------------------------------------------------------


def test_controls_become_steering_gas_and_brake() -> None:
    control = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1], [0.5, -0.5, 0.25]], np.float32)
    wanted = [[-1, 0, 0], [0, 0.5, 0], [1, 1, 1], [0.5, 0.25, 0.25]]
    actions = TASK.env_action(control)
    assert actions.dtype == np.float32 and actions.tolist() == wanted
    assert TASK.memory_action(actions).tolist() == wanted


@pytest.mark.parametrize(
    ("held", "action"),
    [((), (0, 0, 0)), (("left", "up"), (-1, 1, 0)), (("right", "down"), (1, 0, 0.8)), (("left", "right"), (0, 0, 0))],
)
def test_arrow_keys_drive(held: tuple[str, ...], action: tuple[float, ...]) -> None:
    np.testing.assert_allclose(playing_of(TASK).key_action(frozenset(held)), action)


def road_at(column: int, speed_pixels: int = 0) -> np.ndarray:
    """A picture (1, 96, 96, 3) of a straight road around a column, with a speed bar of that height."""
    picture = np.empty((1, 96, 96, 3), np.uint8)
    picture[:], picture[:, :, max(0, column - 8) : column + 8], picture[:, 84:] = GRASS, ROAD, BAR
    picture[:, 96 - speed_pixels :, 12:15] = 255
    return picture


def test_explorers_see_on_which_side_the_road_is_and_how_fast_they_drive() -> None:
    assert _road_offset(road_at(30))[0] < -0.5 and _road_offset(road_at(66))[0] > 0.5
    assert abs(_road_offset(road_at(48))[0]) < 0.1
    assert _road_offset(np.full((1, 96, 96, 3), GRASS, np.uint8))[0] == 0
    assert _speed(road_at(48, 4))[0] > _speed(road_at(48, 2))[0] > _speed(road_at(48))[0] == 0


# --- the rule follow-road ------------------------------------------------------------------------------------


def test_the_road_follower_sees_where_the_road_leads() -> None:
    ahead = np.array([20.0])
    for column, side in ((42, -1), (54, 1)):
        angle, bend, lost = way(road_at(column), ahead)
        assert np.sign(angle[0]) == side and abs(angle[0]) < 1 and bend[0] < 0.5 and not lost[0]
    angle, bend, lost = way(road_at(48), ahead)
    assert abs(angle[0]) < 0.1 and bend[0] < 0.1 and not lost[0]
    to_the_left = road_at(48)
    for row in range(56):
        to_the_left[:, row] = road_at(48 - (56 - row))[:, row]
    angle, bend, lost = way(to_the_left, np.array([16.0]))
    assert angle[0] < 0 and bend[0] > 0.5 and not lost[0]


def test_the_road_follower_turns_to_the_nearest_piece_of_a_road_that_it_has_left() -> None:
    beside = np.concatenate([road_at(10), road_at(86), np.full((1, 96, 96, 3), GRASS, np.uint8)])
    angle, _, lost = way(beside, np.full(3, 20.0))
    assert lost.all() and angle[0] < -1 and angle[1] > 1 and angle[2] == 0


@pytest.mark.parametrize("backend", ["fast", "gymnasium"])
def test_the_road_follower_reads_the_speed_off_the_picture(backend: str) -> None:
    pytest.importorskip("Box2D")
    env = gymnasium.make(TASK.worlds[backend].env_id)  # type: ignore[attr-defined]
    env.reset(seed=3)
    for step in range(150):
        picture = env.step(np.array([0, 0.5, 0] if step < 130 else [0, 0, 0.2], np.float32))[0]
        velocity = env.unwrapped.car.hull.linearVelocity  # type: ignore[attr-defined]
        assert speed(picture[None])[0] == pytest.approx(np.hypot(*velocity), abs=5)
    env.close()


def test_the_rule_follow_road_drives_and_every_other_name_is_refused_in_one_line() -> None:
    pytest.importorskip("Box2D")
    task, rule = TASK.rule("follow-road")
    env = make_envs(task, 4, "fast")
    played = rollout(task, env, rule([1, 2, 3, 4]), [1, 2, 3, 4], 250)
    env.close()
    assert played.returns.min() > 200, played.returns
    with pytest.raises(UserError, match="unknown rule 'follow-rode'; choose from follow-road"):
        TASK.rule("follow-rode")


# --- policies that collect -----------------------------------------------------------------------------------


def noise_free(seeds: list[int]) -> object:
    class Still:
        def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
            return np.tile(np.array([0.0, 0.5, 0.0], np.float32), (len(rows), 1))

    return TASK.perturbed(Still(), seeds)


@pytest.mark.parametrize("make", [TASK.exploration, TASK.random_policy, RoadFollower, noise_free])
def test_policies_act_within_the_action_space_and_by_their_episodes_seed_alone(make) -> None:  # type: ignore[no-untyped-def]
    seeds = [11, 12, 13, 14]
    pictures = np.concatenate([road_at(20 + 15 * i) for i in range(4)])
    together, alone, shrinking = make(seeds), make([13]), make(seeds)
    actions = np.array([together.act(Observations(TASK, pictures), np.arange(4)) for _ in range(30)])
    assert actions.dtype == np.float32 and actions.shape == (30, 4, 3)
    assert (actions >= [-1, 0, 0]).all() and (actions <= 1).all()
    row = [alone.act(Observations(TASK, pictures[2:3]), np.array([0]))[0] for _ in range(30)]
    np.testing.assert_allclose(actions[:, 2], row, rtol=1e-6, atol=1e-7)
    for step in range(30):  # rows 0 and 1 end early; 2 and 3 do what they did beside them
        rows = np.arange(4) if step < 10 else np.array([2, 3])
        acted = shrinking.act(Observations(TASK, pictures[rows]), rows)
        np.testing.assert_allclose(acted, actions[step, rows], rtol=1e-6, atol=1e-7)
    assert np.abs(actions[:, 0] - actions[:, 3]).max() > 0.01


def test_perturbed_drivers_hold_an_action_of_their_own_now_and_then() -> None:
    """Lapses are what tells M the effect of steering from that of the road."""
    driver, pictures = noise_free(list(range(8))), Observations(TASK, np.concatenate([road_at(48)] * 8))
    actions = np.array([driver.act(pictures, np.arange(8)) for _ in range(600)])  # type: ignore[attr-defined]
    held = (np.diff(actions, axis=0) == 0).all(axis=2)
    longest = 0
    for row in range(8):
        run = 0
        for same in held[:, row].tolist():
            run = run + 1 if same else 0
            longest = max(longest, run)
    assert 5 <= longest < 120 and 0.02 < held.mean() < 0.6


# --- names and backends --------------------------------------------------------------------------------------


def test_unknown_names_are_refused_with_a_hint() -> None:
    assert "car-racing" in task_names() and get_task("car-racing").name == "car-racing"
    with pytest.raises(UserError, match="did you mean 'car-racing'"):
        get_task("carracing")
    with pytest.raises(UserError, match="unknown backend 'jax' for car-racing; choose from fast, envpool, gymnasium"):
        make_envs(TASK, 2, "jax")
    with pytest.raises(UserError, match="at least 1 environment, got 0"):
        make_envs(TASK, 0, "envpool")


def test_rows_get_the_seeds_they_are_given() -> None:
    assert row_seeds([5, 6, 7], 3) == [5, 6, 7]
    assert row_seeds(4, 3) == row_seeds(4, 3) != row_seeds(5, 3)
    assert all(0 <= seed < 2**31 for seed in row_seeds(4, 100))
    with pytest.raises(UserError, match="expected 3 seeds, one per environment, got 2"):
        row_seeds([5, 6], 3)


def gas(count: int) -> np.ndarray:
    return np.tile(np.array([0.0, 1.0, 0.0], np.float32), (count, 1))


def short_pool(count: int, max_steps: int) -> EnvPoolVectorEnv:
    pytest.importorskip("envpool")
    env = make_envs(TASK, count, "envpool")
    return EnvPoolVectorEnv("CarRacing-v3", count, env.single_observation_space, env.single_action_space, max_steps)  # type: ignore[arg-type]


def test_a_time_limit_of_envpool_truncates_and_is_no_end_of_the_world() -> None:
    env = short_pool(2, max_steps=3)
    env.reset(seed=[1, 2])
    flags = [env.step(gas(2))[2:4] for _ in range(3)]
    assert not any(terminated.any() for terminated, _ in flags)
    assert [truncated.tolist() for _, truncated in flags] == [[False, False], [False, False], [True, True]]
    env.close()


@pytest.fixture(scope="module")
def off_the_field() -> Iterator[list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]]:
    """Row 0 drives straight on until it leaves the world (at full gas it would skid in circles); row 1 stands still."""
    env = short_pool(2, max_steps=1000)
    first, _ = env.reset(seed=[1, 2])
    steps = [(first.copy(), np.zeros(2), np.zeros(2, bool), np.zeros(2, bool))]
    after = 0
    straight_on = np.array([[0, 0.5, 0], [0, 0, 0]], np.float32)
    while after < 4 and len(steps) < 500:
        seen, rewards, terminated, truncated, _ = env.step(straight_on)
        steps.append((seen.copy(), rewards.copy(), terminated.copy(), truncated.copy()))
        after += any(one[2][0] for one in steps)
    env.close()
    yield steps


Steps = list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def test_leaving_the_field_terminates_with_its_punishment_and_a_last_frame_of_its_own(off_the_field: Steps) -> None:
    (end,) = [index for index, step in enumerate(off_the_field) if step[2][0]]
    assert end == len(off_the_field) - 4 and not any(step[3].any() for step in off_the_field)
    assert off_the_field[end][1][0] <= -99
    change = np.abs(off_the_field[end][0][0].astype(int) - off_the_field[end - 1][0][0]).mean()
    to_reset = np.abs(off_the_field[end][0][0].astype(int) - off_the_field[0][0][0]).mean()
    assert change < to_reset, "the last observation is that of a new episode"


def test_an_ended_row_of_envpool_is_frozen_and_pays_nothing(off_the_field: Steps) -> None:
    last = off_the_field[-4][0][0]
    for seen, rewards, terminated, truncated in off_the_field[-3:]:
        assert np.array_equal(seen[0], last)
        assert rewards[0] == 0 and not terminated[0] and not truncated[0]
        assert rewards[1] == pytest.approx(-0.1, abs=1e-5), "the other row drives on"


def test_a_reset_brings_ended_rows_back_to_their_seeds() -> None:
    env = short_pool(2, max_steps=2)
    first = env.reset(seed=[3, 4])[0].copy()
    for _ in range(3):
        env.step(gas(2))
    again = env.reset(seed=[3, 4])[0].copy()
    assert np.array_equal(first, again)
    assert not np.array_equal(env.step(gas(2))[0], again)
    swapped = env.reset(seed=[4, 3])[0]
    assert np.array_equal(swapped[::-1], first) and not np.array_equal(first[0], first[1])
    env.close()


def test_a_retired_row_is_frozen_until_the_next_reset() -> None:
    env = short_pool(2, max_steps=9)
    env.reset(seed=[3, 4])
    before = env.step(gas(2))[0].copy()
    env.retire(np.array([0]))
    seen, rewards, _, _, _ = env.step(gas(2))
    assert np.array_equal(seen[0], before[0]) and rewards[0] == 0
    assert not np.array_equal(seen[1], before[1])
    env.close()


def test_envpool_gives_the_same_episodes_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("envpool")
    seeds, found = [21, 22, 23], []
    for threads in (1, 3):
        monkeypatch.setattr(envpool_env, "usable_cores", lambda threads=threads: threads)
        env = make_envs(TASK, 3, "envpool")
        played = Pictures()
        result = rollout(TASK, env, TASK.exploration(seeds), seeds, 40, observer=played)
        found.append((result.returns, result.lengths, np.concatenate(played.seen)))
        env.close()
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


class Pictures:
    """Keeps everything that is seen."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def start(self, observations: Observations) -> None:
        self.seen.append(observations.raw.copy())

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        self.seen.append(after.raw.copy())


def colours(frames: np.ndarray) -> np.ndarray:
    """Shares (4,) of grass, road, red-or-white kerb and anything else."""
    r, g, b = (frames[..., channel].astype(int) for channel in range(3))
    grass = (g - r > 60) & (g - b > 60)
    grey = (np.abs(r - g) < 15) & (np.abs(g - b) < 15) & (r < 160)
    bright = (r > 180) & ~grass
    return np.array([grass.mean(), grey.mean(), bright.mean(), (~(grass | grey | bright)).mean()])


def test_both_backends_have_the_same_spaces_and_look_alike() -> None:
    for package in ("envpool", "Box2D", "pygame"):
        pytest.importorskip(package)
    shares, means, spaces = [], [], []
    for backend in TASK.backends:
        env = make_envs(TASK, 4, backend)
        env.reset(seed=[1, 2, 3, 4])
        for _ in range(60):  # the picture has zoomed in by then
            observations = env.step(np.tile(np.array([0, 0.03, 0], np.float32), (4, 1)))[0]
        frames = TASK.frames(np.array(observations))
        assert observations.dtype == np.uint8 and observations.shape == (4, *TASK.observation_shape)
        shares.append(colours(frames))
        means.append(frames.reshape(-1, 3).mean(axis=0))
        spaces.append((env.single_observation_space, env.single_action_space))
        env.close()
    assert spaces[0] == spaces[1]
    np.testing.assert_allclose(shares[0], shares[1], atol=0.1)
    np.testing.assert_allclose(means[0], means[1], atol=15)
    assert shares[0][0] > 0.3 and shares[0][1] > 0.05, "there is grass and there is road"


def test_the_declared_spaces_are_those_of_stock_gymnasium() -> None:
    for package in ("Box2D", "pygame"):
        pytest.importorskip(package)
    import gymnasium

    stock = gymnasium.make("CarRacing-v3")
    ours = make_envs(TASK, 1, "gymnasium")
    assert ours.single_observation_space == stock.observation_space
    assert ours.single_action_space == stock.action_space
    assert stock.spec is not None and stock.spec.max_episode_steps == TASK.max_steps
    ours.close()
