"""The doctor says what works and what to install, and survives every breakage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worldmodels.cli import doctor
from worldmodels.cli.doctor import Row


def library_rows(monkeypatch: pytest.MonkeyPatch, module: str) -> list[Row]:
    """The row of one library when importing it fails."""
    monkeypatch.setitem(sys.modules, module, None)
    library = next(each for each in doctor._LIBRARIES if each.module == module)
    return doctor._library(library)


@pytest.mark.parametrize(
    ("module", "install"),
    [("envpool", "worldmodels[fast]"), ("Box2D", "worldmodels[car]"), ("pygame", "worldmodels[car,play]")],
)
def test_a_missing_extra_is_a_row_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str, install: str
) -> None:
    (row,) = library_rows(monkeypatch, module)
    assert not row.works
    assert row.needed
    assert f'pip install "{install}"' in row.fix
    assert "\n" not in row.found


def test_missing_libraries_end_in_a_table_exit_code_1_and_no_traceback(tmp_path: Path) -> None:
    for module in ("envpool", "pygame", "imageio_ffmpeg"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('a test took it away')\n")
    paths = [str(tmp_path), str(Path(doctor.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from worldmodels.cli.doctor import main; sys.exit(main())"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "300"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    rows = {cells[2].strip(): cells for line in done.stdout.splitlines() if len(cells := line.split("│")) > 4}
    for what, fix in {
        "envpool": 'pip install "worldmodels[fast]"',
        "car-racing on envpool": 'pip install "worldmodels[fast]"',
        "car-racing on gymnasium": 'pip install "worldmodels[car]"',
        "pygame-ce": 'pip install "worldmodels[car,play]"',
        "mp4 films": "pip install imageio-ffmpeg",
    }.items():
        assert rows[what][1].strip() == "no", rows[what]
        assert fix in rows[what][4]
    assert rows["torch"][1].strip() == "ok"
    assert "Training will not work" in done.stdout


def test_a_check_that_breaks_in_an_unforeseen_way_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Row]:
        raise OSError("first line\nlibfoo.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "_checks", lambda: [("foo", broken)])
    (row,) = doctor.report()
    assert (row.what, row.works, row.needed) == ("foo", False, True)
    assert row.found == "OSError: libfoo.so.1: cannot open shared object file"
    assert doctor.main() == 1


def test_what_training_does_not_need_does_not_fail_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "report", lambda: [Row("window", False, "no display", "find a screen")])
    assert doctor.main() == 0
    assert "find a screen" in capsys.readouterr().out


def test_a_trial_that_crashes_is_a_row() -> None:
    assert doctor._try("import os; os.kill(os.getpid(), 11)") == (False, "crashed with signal 11")


def test_a_trial_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TRIAL_SECONDS", 0.5)
    works, found = doctor._try("import time; time.sleep(60)")
    assert not works
    assert found.startswith("hung")


def test_without_a_display_only_playing_is_reported_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (row,) = doctor._window()
    assert not row.works
    assert not row.needed
    assert "xvfb-run" in row.fix


def test_markup_in_what_was_found_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("x", False, "bad [/red]", 'pip install "worldmodels[fast]"')
    monkeypatch.setattr(doctor, "report", lambda: [row])
    monkeypatch.setenv("COLUMNS", "200")
    doctor.main()
    written = capsys.readouterr().out
    assert "bad [/red]" in written
    assert "worldmodels[fast]" in written
