"""What the terminal shows: words out of files are text, and neither commands to the terminal nor markup."""

import io

import pytest
from rich.table import Table

from worldmodels.core.events import say
from worldmodels.core.terminal import console, printable

HOSTILE = "a\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eback\u2066 line\r\nnext\x00 \u2028 \udc80 [bold]x[/bold] :smile:"


def test_control_characters_are_written_as_escapes_and_all_others_stay() -> None:
    shown = printable(HOSTILE)
    assert shown.isprintable() and "a\\x1b[31mred" in shown and "\\u202eback" in shown and "\\r\\nnext\\x00" in shown
    assert printable("größer, ± 3 µm → 日本") == "größer, ± 3 µm → 日本"
    assert printable("two\nlines", keep="\n") == "two\nlines"


def test_a_message_is_shown_as_one_line_of_printable_text(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown[:-1].isprintable() and "[bold]x[/bold] :smile:" in shown


def test_a_table_shows_the_words_of_files_as_they_are() -> None:
    table = Table(title=HOSTILE, caption="two\nlines")
    table.add_column("[red]name")
    table.add_row(HOSTILE)
    file = io.StringIO()
    console(file=file, width=300).print(table)
    text = file.getvalue()
    assert all(one.isprintable() or one == "\n" for one in text)
    assert text.count("[bold]x[/bold] :smile:") == 2 and "[red]name" in text
    assert text.count("\\x1b[31mred") == 2
