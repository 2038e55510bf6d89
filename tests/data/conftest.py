"""Fixtures that the tests of the data share."""

import pytest

from collecting import ITEMS
from worldmodels.tasks.bin_packing.task import BinPacking


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> BinPacking:
    """Bin packing of 30 items."""
    monkeypatch.setattr(BinPacking, "max_steps", ITEMS)
    return BinPacking()
