"""The doctor says what works, what to install and which worlds are ready, at once, and survives every breakage."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import worldmodels
from outside import registered
from worldmodels.cli import doctor
from worldmodels.cli.doctor import machine, trials, worlds
from worldmodels.cli.doctor.rows import Check, Row, library
from worldmodels.tasks import TASKS
from worldmodels.tasks.base import ProcessWorld, World
from worldmodels.tasks.bin_packing.task import BinPacking

DOCTOR = "import sys; from worldmodels.cli.main import main; sys.exit(main(['doctor']))"
SOURCES = str(Path(worldmodels.__file__).parents[1])


def launched(*folders: Path, program: str = DOCTOR) -> subprocess.Popen[str]:
    """The doctor in a process of its own, which finds modules in some folders first."""
    paths = [*map(str, folders), SOURCES]
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def without(folder: Path, *modules: str) -> Path:
    """A folder in which these modules are broken."""
    for module in modules:
        (folder / f"{module}.py").write_text("raise ImportError('a test took it away')\n")
    return folder


def rows_of(text: str) -> dict[str, tuple[str, str]]:
    """Mark and what to do by what was looked at, where that has a short name."""
    found, lines = dict[str, tuple[str, str]](), text.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line[:4] in ("ok  ", "no  "):
            found[line[4:34].strip()] = line[:2], after.strip() if after.startswith(" " * 30) else ""
    return found


@pytest.mark.parametrize(
    ("module", "extra"), [("envpool", "envpool"), ("Box2D", "car"), ("pygame", "car"), ("vizdoom", "doom")]
)
def test_a_missing_library_of_a_world_is_a_row_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (row,) = (row for row in worlds.world_libraries() if row.what == module)
    assert not row.works and not row.needed, "other worlds do without it"
    assert row.fix.startswith(f'pip install "worldmodels[{extra}]"')
    assert "\n" not in row.found


def test_a_missing_library_that_everything_needs_is_marked_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    found = {row.what: row for row in machine.libraries()}
    assert not found["cma"].works and found["cma"].needed and "worldmodels[all]" in found["cma"].fix
    assert found["torch"].works and found["torch"].found[0].isdigit()
    assert not found["imageio"].needed


def test_missing_libraries_of_one_world_leave_the_others_ready(tmp_path: Path) -> None:
    process = launched(without(tmp_path, "envpool", "pygame", "imageio_ffmpeg"))
    text, complaint = process.communicate(timeout=900)
    assert process.returncode == 0, complaint
    assert "Traceback" not in text + complaint
    rows = rows_of(text)
    for what, fix in {
        "envpool": 'pip install "worldmodels[envpool]"',
        "car-racing on envpool": 'pip install "worldmodels[envpool]"',
        "car-racing on gymnasium": 'pip install "worldmodels[car]"',
        "pygame": 'pip install "worldmodels[car]"',
        "mp4 videos": "pip install imageio-ffmpeg",
    }.items():
        assert rows[what][0] == "no" and fix in rows[what][1], rows[what]
    assert rows["torch"][0] == "ok"
    verdicts = text.split("\n\n")[-1].splitlines()
    assert "bin-packing: ready" in verdicts
    (verdict,) = (one for one in verdicts if one.startswith("car-racing: "))
    assert verdict.startswith("car-racing: cannot make the environment") and "pygame is not installed" in verdict
    assert 'pip install "worldmodels[car]"' in verdict


def test_a_broken_core_package_ends_with_code_1_and_says_so(tmp_path: Path) -> None:
    process = launched(without(tmp_path, "safetensors"))
    text, complaint = process.communicate(timeout=900)
    assert process.returncode == 1 and "Traceback" not in text + complaint
    assert "Nothing can be trained before this is repaired: safetensors" in text


def test_the_first_row_comes_before_anything_heavy_is_imported() -> None:
    program = (
        "import sys; from worldmodels.cli import doctor; print(next(doctor.report()).what, 'torch' in sys.modules)"
    )
    text, complaint = launched(program=program).communicate(timeout=60)
    assert text.split() == ["python", "False"], complaint


def test_rows_are_printed_as_they_come(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []

    def rows() -> Iterator[Row]:
        for name in ("first", "second"):
            printed.append(capsys.readouterr().out)
            yield Row(name, True, "fine")

    monkeypatch.setattr(doctor, "report", rows)
    doctor.main()
    assert printed[0] == "" and "first" in printed[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once(number: signal.Signals, code: int) -> None:
    process = launched()
    assert process.stdout is not None
    assert "python" in process.stdout.readline()
    process.send_signal(number)
    sent = time.monotonic()
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in complaint
    assert time.monotonic() - sent < 10
    assert complaint.strip() == ("worldmodels: interrupted" if number == signal.SIGINT else "")


def test_a_check_that_breaks_in_an_unforeseen_way_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Row]:
        yield Row("before", True, "fine")
        raise OSError("first line\nlibfoo.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "checks", lambda: [Check("foo", broken, needed=True), _trainable()])
    before, row, _ = doctor.report()
    assert before.what == "before"
    assert (row.what, row.works, row.needed) == ("foo", False, True)
    assert row.found == "OSError: libfoo.so.1: cannot open shared object file"
    assert doctor.main() == 1
    monkeypatch.setattr(doctor, "checks", lambda: [Check("foo", broken), _trainable()])
    assert doctor.main() == 0, "training does not need it"


def _trainable() -> Check:
    return Check("worlds", lambda: [Row("w on b", True, "drew", task="w", backend="b", reference=True)])


def test_what_training_does_not_need_does_not_fail_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row("window", False, "no display", "find a screen"), *_trainable().rows()]
    monkeypatch.setattr(doctor, "report", lambda: rows)
    assert doctor.main() == 0
    assert "find a screen" in capsys.readouterr().out


def test_where_no_world_can_be_trained_the_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("w on b", False, "missing fun", "pip install fun", task="w", backend="b", reference=True)
    monkeypatch.setattr(doctor, "report", lambda: [row])
    assert doctor.main() == 1
    written = capsys.readouterr().out
    assert "w: missing fun; pip install fun" in written and "No world can be trained here" in written


def test_the_verdict_on_a_world_depends_on_the_backend_on_which_scores_count() -> None:
    def rows(fast: bool, reference: bool) -> list[Row]:
        return [
            Row("w on fast", fast, "" if fast else "missing speed", "get speed", task="w", backend="fast"),
            Row("w on slow", reference, "crashed", "get slow", task="w", backend="slow", reference=True),
            Row("gpu", True, "none"),
        ]

    verdicts = {which: doctor.verdicts_of(rows(*which)) for which in [(True, True), (False, True), (True, False)]}
    assert [one.text for one in verdicts[True, True]] == ["w: ready"]
    assert [one.text for one in verdicts[False, True]] == ["w: ready on slow; fast: missing speed; get speed"]
    assert [one.text for one in verdicts[True, False]] == ["w: crashed; get slow"]
    assert [some[0].trainable for some in verdicts.values()] == [True, True, False]


def test_a_world_says_itself_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(BinPacking):
        name = "odd"
        reference_backend = "slow"

        @property
        def worlds(self) -> Mapping[str, World]:
            return {**super().worlds, "slow": ProcessWorld("Odd-v0", ("no_such_module",), "car")}

    asked: list[tuple[str, ...]] = []

    def outcomes(program: str, arguments: list[tuple[str, ...]]) -> Iterator[tuple[bool, str]]:
        asked.extend(arguments)
        yield from ((True, "drew") for _ in arguments)

    monkeypatch.setattr(worlds, "all_tried", outcomes)
    with registered(TASKS, "odd", Odd), registered(TASKS, "broken", "no_such_module:Task"):
        monkeypatch.setattr("worldmodels.tasks.task_names", lambda: ["odd", "broken"])
        rows = {row.what: row for row in worlds.worlds()}
    assert asked == [("odd", "native")], "what lacks a library is not tried"
    assert rows["odd on native"].works and not rows["odd on native"].reference
    assert rows["odd on slow"].found == "missing no_such_module" and rows["odd on slow"].reference
    assert rows["odd on slow"].fix.startswith('pip install "worldmodels[car]"')
    assert "--collect.backend slow" in rows["odd on native"].fix
    assert "no_such_module" in rows["broken"].found
    texts = [verdict.text for verdict in doctor.verdicts_of(rows.values())]
    assert texts[0].startswith('odd: missing no_such_module; pip install "worldmodels[car]"')
    assert texts[1].startswith("broken: UserError: the task 'broken' is registered as no_such_module:Task")


def test_an_extra_says_what_it_does_not_bring_to_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ['fun>=1; (python_version < "3.0") and extra == "car"', "more; extra == 'car'", "other; extra == 'doom'"]
    monkeypatch.setattr(worlds.metadata, "requires", lambda name: wanted)
    assert worlds.install("car") == 'pip install "worldmodels[car]" (it brings no fun for this Python or system)'
    assert worlds.install("doom") == 'pip install "worldmodels[doom]"'


def test_no_file_of_the_doctor_names_a_world() -> None:
    for path in Path(doctor.__file__).parent.glob("*.py"):
        for name in ("racing", "vizdoom", "cover", "packing", "Box2D"):
            assert name not in path.read_text(), f"{name} in {path.name}"


def test_a_trial_that_crashes_is_a_row() -> None:
    assert trials.tried("import os; os.kill(os.getpid(), 11)") == (False, "crashed with signal 11")


def test_a_trial_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_SECONDS", 0.5)
    works, found = trials.tried("import time; time.sleep(60)")
    assert not works
    assert found.startswith("did not end within")


def test_trials_come_in_order_and_say_what_went_wrong_in_their_last_line() -> None:
    program = "import sys; print('did', sys.argv[1]) if sys.argv[1] != '2' else sys.exit('first\\nlast')"
    outcomes = list(trials.all_tried(program, [(str(number),) for number in range(5)]))
    assert outcomes == [(True, "did 0"), (True, "did 1"), (False, "last"), (True, "did 3"), (True, "did 4")]


def test_trials_that_nobody_waits_for_are_ended(tmp_path: Path) -> None:
    program = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(int(sys.argv[2]))"
    outcomes = trials.all_tried(program, [(str(tmp_path / str(one)), str(one)) for one in (0, 600, 600)])
    assert next(outcomes)[0]
    while not (tmp_path / "600").exists() or not (tmp_path / "600").read_text():
        time.sleep(0.01)
    outcomes.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "600").read_text()), 0)


def test_a_world_that_cannot_be_built_is_tried_without_a_traceback() -> None:
    assert trials.tried(worlds._TRY_WORLD, "bin-packing", "fast") == (
        False,
        "unknown backend 'fast' for bin-packing; choose from native",
    )
    assert trials.tried(worlds._TRY_WORLD, "bin-packing", "native")[1] == "drew 64x64x3 and took a step"


def test_without_a_display_only_playing_is_reported_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (row,) = machine.window()
    assert not row.works
    assert not row.needed
    assert "xvfb-run" in row.fix


def test_markup_in_what_was_found_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("x", False, "bad [/red]", 'pip install "worldmodels[envpool]"')
    monkeypatch.setattr(doctor, "report", lambda: [row])
    doctor.main()
    written = capsys.readouterr().out
    assert "bad [/red]" in written
    assert "worldmodels[envpool]" in written


def test_a_library_that_is_there_is_said_with_its_version() -> None:
    assert library("numpy", "").found[0].isdigit()
    assert library("worlds", "").found == "unknown version", "a module that no distribution brought"
