"""`gradlab submit --to kaggle`: Kaggle's real client against Kaggle on loopback."""

from __future__ import annotations

from .conftest import Desk
from .kaggle_service import Kaggle


def test_a_run_is_handed_over_and_its_end_is_read_from_its_own_record(
    desk: Desk, kaggle: Kaggle
) -> None:
    text = desk.run("submit", "train", "--to", "kaggle", "--follow")
    assert text.returncode == 0, text.stderr
    assert "17.5 of 30 hours of GPU are left this week" in text.stderr
    assert "train: done: the run has finished" in text.stderr
    (slug,) = kaggle.pushed
    assert slug == desk.hops()[0]["name"] and slug.endswith("-1")
    assert kaggle.kernels[slug].datasets == [f"{slug}-in"]
    assert kaggle.kernels[slug].machine == "NvidiaTeslaT4"
    assert kaggle.datasets == {}, "the secrets are gone with the hop"
    assert desk.spills() == []
