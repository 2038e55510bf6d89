"""Plots are drawn from whatever a run has, and show what its files say."""

import json
import os
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worldmodels.analysis.plots import bar_of_scores, curves_figure, phase_columns, scores_figure, training_curves
from worldmodels.core.errors import UserError
from worldmodels.core.metrics import read_metrics
from worldmodels.evaluation import report
from worldmodels.tasks import get_task
from worlds import Scripted

VISION = "step,reconstruction,kl,loss,lr,vision_per_s\n20,90,17,107,1e-4,900\n40,50,16,66,1e-4,900\n"
MEMORY = "step,nll,reward,end,loss,lr,memory_per_s\n20,1.4,1,.1,2.5,1e-3,9\n40,1.3,2,.2,2.4,1e-3,9\n"
GENERATIONS = "step,mean,best,sd,max_steps,steps_per_s,sigma,validation,validation_sd\n"


def write_metrics(run: Path, stage: str, text: str, round_number: int = 1) -> None:
    folder = run / f"round-{round_number}" / stage
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """The points of every labelled line."""
    found = {}
    for line in axes.lines:
        points = list(zip(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True))
        found[str(line.get_label())] = points
    return {label: points for label, points in found.items() if not label.startswith("_")}


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def panels(figure: Figure) -> dict[str, Axes]:
    """The panels by their titles; axes that lie on others have none."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


def on_the_right(figure: Figure, panel: Axes) -> Axes:
    (twin,) = (one for one in figure.axes if one is not panel and one.bbox.bounds == panel.bbox.bounds)
    return twin


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def whole_run(run: Path) -> None:
    write_metrics(run, "vision", VISION)
    write_metrics(run, "memory", MEMORY)
    write_metrics(run, "controller/1-real", GENERATIONS + "1,5,9,2,250,900,.1,,\n2,8,12,2,265,900,.1,50,10\n")
    result = report(get_task("car-racing"), "me", "gymnasium", [1, 2, 3], np.array([1.0, 5.0, 9.0]))
    (run / "summary.json").write_text(json.dumps({"evaluation": result}))
    (run / "run.json").write_text('{"layout": 2, "task": "car-racing", "preset": "quick", "seed": 7}')


def test_curves_of_a_whole_run_are_drawn(tmp_path: Path) -> None:
    whole_run(tmp_path)
    figure = curves_figure(tmp_path)
    drawn = panels(figure)
    assert list(drawn) == ["Vision", "Memory", "Controller", "Evaluation"]
    assert lines(drawn["Vision"]) == {
        "reconstruction (squared error)": [(20, 90), (40, 50)],
        "KL (nats)": [(20, 17), (40, 16)],
    }
    assert lines(drawn["Memory"]) == {"next z (nats per dimension)": [(20, 1.4), (40, 1.3)]}
    assert lines(on_the_right(figure, drawn["Memory"])) == {
        "reward (squared error)": [(20, 1), (40, 2)],
        "end (cross-entropy)": [(20, 0.1), (40, 0.2)],
    }
    assert len(legend(drawn["Memory"])) == 3
    assert lines(drawn["Controller"]) == {
        "best candidate": [(1, 9), (2, 12)],
        "population mean": [(1, 5), (2, 8)],
        "validation ± sd": [(2, 50)],
    }
    assert lines(on_the_right(figure, drawn["Controller"])) == {"longest episode": [(1, 250), (2, 265)]}
    assert sum(bar.get_height() for bar in drawn["Evaluation"].patches[:5]) == 3  # type: ignore[attr-defined]
    assert {"mean 5", "median 5"} < set(legend(drawn["Evaluation"]))
    assert drawn["Evaluation"].get_xlabel() == "return of 3 fresh episodes on gymnasium"


def test_the_figure_of_a_run_names_it_with_its_task_its_preset_and_its_seed(tmp_path: Path) -> None:
    whole_run(tmp_path)
    assert curves_figure(tmp_path).get_suptitle() == f"run {tmp_path.name}: car-racing, preset quick, seed 7"
    (tmp_path / "run.json").write_text("{not JSON")
    assert curves_figure(tmp_path).get_suptitle() == ""


def test_the_picture_of_a_run_is_written_large_enough_to_read(tmp_path: Path) -> None:
    whole_run(tmp_path)
    training_curves(tmp_path, tmp_path / "curves.png")
    picture = np.asarray(imageio.imread(tmp_path / "curves.png"))
    assert picture.shape[0] > 900 and picture.shape[1] > 1400
    training_curves(tmp_path, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "curves.png").read_bytes()


def test_phases_follow_each_other_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_metrics(tmp_path, "controller/1-real", GENERATIONS + "1,5,9,2,250,9,.1,,\n2,8,12,2,265,9,.1,50,10\n")
    (before,) = phase_columns(tmp_path / "round-1" / "controller")
    assert before[0] == "real" and before[1]["step"].tolist() == [1, 2]
    assert texts(panels(curves_figure(tmp_path))["Controller"]) == [], "one phase needs no name"
    write_metrics(tmp_path, "controller/10-last", GENERATIONS + "1,20,21,1,1000,9,.1,,\n")
    write_metrics(tmp_path, "controller/2-finetune", GENERATIONS + "1,9,10,1,1000,9,.1,,\n2,11,12,1,1000,9,.1,60,9\n")
    write_metrics(tmp_path, "controller/old", GENERATIONS + "1,7,7,7,7,7,.1,,\n")
    phases = phase_columns(tmp_path / "round-1" / "controller")
    assert [name for name, _ in phases] == ["real", "finetune", "last"]
    assert [columns["step"].tolist() for _, columns in phases] == [[1, 2], [3, 4], [5]]
    panel = panels(curves_figure(tmp_path))["Controller"]
    places = {text.get_text().strip(): text.get_position()[0] for text in panel.texts}
    assert places == {"real": 0.5, "finetune": 2.5, "last": 5}, "a name stands where its phase begins, or at the end"
    borders = [np.asarray(line.get_xdata()).tolist() for line in panel.lines if line.get_linestyle() == ":"]
    assert borders == [[2.5, 2.5], [4.5, 4.5]]
    means = [line for line in panel.lines if line.get_label() == "population mean"]
    assert [np.asarray(line.get_ydata()).tolist() for line in means] == [[5, 8], [9, 11], [20]]
    assert legend(panel).count("population mean") == 1


def test_further_starts_of_a_phase_are_drawn_over_the_first(tmp_path: Path) -> None:
    write_metrics(tmp_path, "controller/1-real", GENERATIONS + "1,5,9,2,250,9,.1,,\n2,8,12,2,265,9,.1,50,10\n")
    write_metrics(tmp_path, "controller/1-real-start-2", GENERATIONS + "1,6,9,2,250,9,.1,,\n2,7,9,2,265,9,.1,40,9\n")
    write_metrics(tmp_path, "controller/2-finetune", GENERATIONS + "1,9,10,1,1000,9,.1,60,9\n")
    phases = phase_columns(tmp_path / "round-1" / "controller")
    assert [name for name, _ in phases] == ["real", "real", "finetune"]
    assert [columns["step"].tolist() for _, columns in phases] == [[1, 2], [1, 2], [3]]
    panel = panels(curves_figure(tmp_path))["Controller"]
    assert [text.strip() for text in texts(panel)] == ["real", "finetune"], "a phase is named once"
    (tmp_path / "round-1" / "controller" / "2-finetune" / "metrics.csv").unlink()
    assert texts(panels(curves_figure(tmp_path))["Controller"]) == [], "one phase needs no name"


def test_a_single_point_is_drawn_as_a_dot(tmp_path: Path) -> None:
    write_metrics(tmp_path, "vision", "step,reconstruction,kl\n20,90,17\n")
    write_metrics(tmp_path, "memory", "step,nll,reward\n20,1.4,2\n")
    write_metrics(tmp_path, "controller/1-real", GENERATIONS + "1,5,9,2,250,900,.1,,\n")
    figure = curves_figure(tmp_path)
    found = [line for axes in figure.axes for line in axes.lines]
    assert len(found) == 6 and all(line.get_marker() == "o" for line in found)
    whole_run(tmp_path / "longer")
    longer = panels(curves_figure(tmp_path / "longer"))["Vision"]
    assert all(line.get_marker() == "" for line in longer.lines)


def test_losses_of_another_v_are_drawn_by_their_names(tmp_path: Path) -> None:
    write_metrics(tmp_path, "vision", "step,reconstruction,feature_distance,loss,lr,vision_per_s\n20,90,-1,9,1,1\n")
    panel = panels(curves_figure(tmp_path))["Vision"]
    assert set(lines(panel)) == {"reconstruction (squared error)", "feature distance"}
    assert panel.get_yscale() == "linear", "a logarithm cannot show what is below 0"


def test_losses_of_held_out_episodes_are_drawn_beside_those_of_training(tmp_path: Path) -> None:
    held = "held_out_nll,held_out_end,held_out_loss"
    write_metrics(tmp_path, "memory", f"step,nll,end,loss,{held},lr\n20,1.4,.1,2,,,,1\n100,1.3,.2,2,1.6,.3,1.9,1\n")
    write_metrics(tmp_path, "vision", "step,kl,loss,held_out_kl,held_out_loss,lr\n20,9,9,,,1\n200,8,8,8.5,8.5,1\n")
    figure = curves_figure(tmp_path)
    memory, vision = (panels(figure)[name] for name in ("Memory", "Vision"))
    assert lines(memory)["next z (nats per dimension), held out"] == [(100.0, 1.6)]
    assert lines(on_the_right(figure, memory))["end (cross-entropy), held out"] == [(100.0, 0.3)]
    assert lines(vision)["KL (nats), held out"] == [(200.0, 8.5)]
    assert not any("loss" in label for axes in figure.axes for label in lines(axes))


def test_long_noisy_curves_are_drawn_with_their_running_median(tmp_path: Path) -> None:
    rows = [f"{step},{100 + 50 * (step % 7 == 0)},1" for step in range(1, 101)]
    write_metrics(tmp_path, "vision", "step,reconstruction,kl\n" + "\n".join(rows) + "\n")
    smooth = lines(panels(curves_figure(tmp_path))["Vision"])["reconstruction (squared error)"]
    assert {value for _, value in smooth} == {100.0}


def test_every_round_has_its_panels_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_metrics(tmp_path, "vision", f"step,reconstruction,kl\n{number},90,17\n", number)
    drawn = panels(curves_figure(tmp_path))
    assert [title for title in drawn if "Vision" in title] == [f"Round {one}: Vision" for one in (1, 2, 10)]
    assert lines(drawn["Round 10: Vision"])["KL (nats)"] == [(10, 17)]


def test_curves_are_drawn_when_stages_are_missing(tmp_path: Path) -> None:
    write_metrics(tmp_path, "memory", "step,nll,loss\n20,1.4,1.4\n40,1.3,1.3\n")
    drawn = panels(curves_figure(tmp_path))
    assert lines(drawn["Memory"]) == {"next z (nats per dimension)": [(20, 1.4), (40, 1.3)]}
    for name in ("Vision", "Controller", "Evaluation"):
        assert texts(drawn[name]) == ["not measured yet"] and not drawn[name].lines
    training_curves(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_higher_score_gives_a_longer_bar(tmp_path: Path) -> None:
    rows = [("random", report(Scripted(), "r", "slow", [1, 2], np.array([-50.0, -60.0])))]
    rows.append(("agent", report(Scripted(), "a", "slow", [1, 2], np.array([790.0, 800.0]))))
    figure = scores_figure(rows, "car-racing, seed 1")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [-55.0, 795.0]  # type: ignore[attr-defined]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["random", "agent"]
    assert texts(axes) == ["-55 ± 64", "795 ± 64"], "Student's t for two episodes"
    dots = [np.asarray(one.get_offsets())[:, 0].tolist() for one in axes.collections[::2]]
    assert dots == [[-50.0, -60.0], [790.0, 800.0]]
    assert axes.get_xlabel() == "return: mean and its 95% interval, 2 episodes each (dots)"
    assert figure.get_suptitle() == "car-racing, seed 1"
    (tmp_path / "run.json").write_text('{"task": "t", "preset": "p", "seed": 3}')
    bar_of_scores(rows, tmp_path / "named.png", tmp_path)
    bar_of_scores(rows, tmp_path / "scores.png")
    assert (tmp_path / "named.png").read_bytes() != (tmp_path / "scores.png").read_bytes()


def test_empty_cells_are_gaps_and_an_unfinished_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,mean,validation\n1,5,\n2,8,50\n3,9")
    data = read_metrics(tmp_path / "metrics.csv")
    assert data["step"].tolist() == [1, 2] and data["mean"].tolist() == [5, 8]
    assert np.isnan(data["validation"][0]) and data["validation"][1] == 50
    assert read_metrics(tmp_path / "absent.csv") == {}


@pytest.mark.parametrize(
    "text", ['{"evaluation": {"returns": [1,', '{"evaluation": {"returns": [1]}}', '{"evaluation": 3}', "[]"]
)
def test_a_damaged_evaluation_does_not_keep_the_curves_from_being_drawn(tmp_path: Path, text: str) -> None:
    write_metrics(tmp_path, "vision", VISION)
    (tmp_path / "summary.json").write_text(text)
    drawn = panels(curves_figure(tmp_path))
    assert len(lines(drawn["Vision"])) == 2 and texts(drawn["Evaluation"]) == ["not measured yet"]


def test_the_evaluation_of_a_round_comes_before_that_of_the_summary(tmp_path: Path) -> None:
    whole_run(tmp_path)
    (tmp_path / "round-1" / "evaluation").mkdir()
    result = report(get_task("car-racing"), "me", "envpool", [1, 2], np.array([100.0, 300.0]))
    (tmp_path / "round-1" / "evaluation" / "evaluation.json").write_text(json.dumps(result))
    assert "mean 200" in legend(panels(curves_figure(tmp_path))["Evaluation"])


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the directory of a run"):
        training_curves(tmp_path, tmp_path / "curves.png")


def test_no_scores_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scores to draw"):
        bar_of_scores([], tmp_path / "scores.png")


DAMAGED = {
    "a flipped bit in the header": VISION.replace("step", "stap"),
    "a column without a name that is known": VISION.replace("reconstruction", "$\\frac$"),
    "a giant number": VISION.replace("90", "1e308"),
    "a tiny number": VISION.replace("17", "5e-324"),
    "a giant step": VISION.replace("40,", "9" * 300 + ","),
    "a huge cell": VISION.replace("90", "9" * 200_000),
    "no numbers": VISION.replace("90", "ninety"),
    "bytes": "\x00\x1b\n" * 40,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_table_of_metrics_does_not_stop_a_plot(damage: str, tmp_path: Path) -> None:
    whole_run(tmp_path)
    for stage in ("vision", "memory", "controller/1-real"):
        (tmp_path / "round-1" / stage / "metrics.csv").write_text(DAMAGED[damage])
    training_curves(tmp_path, tmp_path / "curves.png")
    assert imageio.imread(tmp_path / "curves.png").ndim == 3


@pytest.mark.parametrize(
    "scores", [{"returns": "many"}, {"mean": "high"}, {"ci95": [1]}, {"returns": [1e308, -1e308]}, {"median": None}]
)
def test_scores_of_the_wrong_shape_are_not_drawn(scores: dict[str, object], tmp_path: Path) -> None:
    write_metrics(tmp_path, "vision", VISION)
    content = {"returns": [1.0, 2.0], "mean": 1.5, "median": 1.5, "ci95": [1.0, 2.0]}
    for change, drawn in (({}, True), (scores, False)):
        (tmp_path / "summary.json").write_text(json.dumps({"evaluation": content | change}))
        figure = curves_figure(tmp_path)
        assert ("not measured yet" not in texts(panels(figure)["Evaluation"])) is drawn


def test_the_words_of_a_run_are_drawn_as_text_and_not_as_formulas(tmp_path: Path) -> None:
    whole_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"task": "$\\frac$", "preset": "a\x1b[31m", "seed": 1}))
    training_curves(tmp_path, tmp_path / "curves.png")
    assert curves_figure(tmp_path).get_suptitle() == f"run {tmp_path.name}: $\\frac$, preset a\\x1b[31m, seed 1"


def test_of_very_many_rounds_the_last_ones_are_drawn(tmp_path: Path) -> None:
    for number in range(1, 26):
        write_metrics(tmp_path, "vision", VISION, number)
    (tmp_path / "round-999999999999999999").mkdir()
    titles = list(panels(curves_figure(tmp_path)))
    assert len(titles) == 80 and titles[0] == "Round 6: Vision" and titles[-1] == "Round 25: Evaluation"


def test_a_pipe_in_the_place_of_a_file_is_left_out_and_not_waited_for(tmp_path: Path) -> None:
    write_metrics(tmp_path, "vision", VISION)
    for name in ("run.json", "summary.json", "round-1/vision/metrics.csv"):
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
    assert "not measured yet" in texts(panels(curves_figure(tmp_path))["Vision"])


def test_scores_of_one_episode_are_drawn_without_an_interval() -> None:
    one = report(Scripted(), "one", "slow", [1], np.array([7.0]))
    (axes,) = scores_figure([("one", one)]).axes
    assert texts(axes) == ["7"] and axes.get_xlabel() == "return: mean, 1 episode each (dots)"
    more = report(Scripted(), "more", "slow", [1, 2, 3], np.array([7.0, 8.0, 9.0]))
    (axes,) = scores_figure([("one", one), ("more", more)]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one\n1 episode", "more\n3 episodes"]
    assert texts(axes) == ["7", "8 ± 2"]


def test_every_figure_says_that_episodes_were_cut_short(tmp_path: Path) -> None:
    row = report(get_task("car-racing"), "me", "gymnasium", [1, 2], np.array([1.0, 2.0]), steps=300)
    note = "cut short at 300 steps: not a score"
    assert scores_figure([("me", row), ("other", row)], "car-racing").get_suptitle() == f"car-racing; {note}"
    whole_run(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"evaluation": row}))
    assert panels(curves_figure(tmp_path))["Evaluation"].get_title(loc="right") == note
    single = report(get_task("car-racing"), "me", "gymnasium", [1], np.array([1.0]))
    (tmp_path / "summary.json").write_text(json.dumps({"evaluation": single}))
    panel = panels(curves_figure(tmp_path))["Evaluation"]
    assert panel.get_xlabel() == "return of 1 fresh episode on gymnasium" and panel.get_title(loc="right") == ""
    assert legend(panel) == ["mean 1", "median 1"]


LAPS = {
    "facts": {"steps": [700, 1000, 710], "finished": [True, False, True], "tiles": [1.0, 0.9, 1.0]},
    "finished": {"goal": "finished laps", "count": 2, "share": 2 / 3, "ci95": [0.21, 0.94]},
}


def test_finished_episodes_are_told_apart_and_scores_of_before_are_drawn_as_before(tmp_path: Path) -> None:
    whole_run(tmp_path)
    plain = report(get_task("car-racing"), "me", "gymnasium", [1, 2, 3], np.array([905.0, 790.0, 910.0]))
    (tmp_path / "summary.json").write_text(json.dumps({"evaluation": plain | LAPS}))
    panel = panels(curves_figure(tmp_path))["Evaluation"]
    assert "finished laps 67% (21% to 94%)" in legend(panel)
    every, finished = ([patch.get_height() for patch in bars] for bars in panel.containers)
    assert sum(every) == 3 and sum(finished) == 2 and finished[-1] == every[-1] and finished[0] == 0 < every[0]
    (axes,) = scores_figure([("me", plain | LAPS), ("before", plain)]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["me\n67% finished laps", "before"]
    for damage in ({"facts": {"finished": [True]}}, {"facts": None}, {"finished": {"share": 2.0}}, {"finished": 3}):
        (tmp_path / "summary.json").write_text(json.dumps({"evaluation": plain | LAPS | damage}))
        assert not any("finished" in text for text in legend(panels(curves_figure(tmp_path))["Evaluation"]))


def test_no_legend_covers_a_panel_or_another_legend(tmp_path: Path) -> None:
    for number in (1, 2):
        write_metrics(tmp_path, "vision", VISION, number)
        write_metrics(tmp_path, "memory", MEMORY, number)
        for phase in ("1-real", "2-finetune"):
            write_metrics(
                tmp_path, f"controller/{phase}", GENERATIONS + "1,5,9,2,250,9,.1,4,1\n2,8,9,2,300,9,.1,5,1\n", number
            )
        result = report(get_task("car-racing"), "me", "gymnasium", [1, 2, 3], np.array([1.0, 5.0, 9.0]))
        result |= LAPS if number == 2 else {}
        (tmp_path / f"round-{number}" / "evaluation").mkdir()
        (tmp_path / f"round-{number}" / "evaluation" / "evaluation.json").write_text(json.dumps(result))
    figure = curves_figure(tmp_path)
    figure.draw_without_rendering()
    legends = [found for axes in figure.axes if (found := axes.get_legend()) is not None]
    assert len(legends) == 8
    inside = figure.bbox.padded(1)
    boxes = [found.get_window_extent() for found in legends]
    for place, box in enumerate(boxes):
        assert inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0
        others = [axes.get_window_extent() for axes in figure.axes] + boxes[:place]
        others += [axes.xaxis.label.get_window_extent() for axes in figure.axes]
        assert [other.bounds for other in others if box.padded(-1).overlaps(other)] == [], box.bounds


def test_losses_of_a_vision_model_with_a_discriminator_are_told_apart(tmp_path: Path) -> None:
    names = ["discriminator_real", "discriminator_reconstructed", "discriminator_prior", "discriminator_accuracy"]
    names += ["reconstruction", "kl", "feature", "generator"]
    rows = [",".join([str(step), *["0.5"] * len(names)]) for step in (20, 40)]
    write_metrics(tmp_path, "vision", "\n".join([",".join(["step", *names]), *rows]) + "\n")
    panel = curves_figure(tmp_path).axes[0]
    looks = {(line.get_color(), line.get_linestyle()) for line in panel.get_lines()}
    assert len(looks) == len(names)
