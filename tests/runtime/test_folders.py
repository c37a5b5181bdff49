from pathlib import Path

import pytest

from runtime.folders import CHECKOUT, cache_folder, home_folder


def test_data_live_in_the_checkout_unless_told_otherwise() -> None:
    assert home_folder({}) == CHECKOUT / ".drumbeat"
    assert home_folder({"DRUMBEAT_HOME": "/srv/drumbeat"}) == Path("/srv/drumbeat")


def test_the_cache_is_the_users_unless_told_otherwise(tmp_path: Path) -> None:
    told = {"DRUMBEAT_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": str(tmp_path)}
    assert cache_folder(told) == Path("/a")
    assert cache_folder({**told, "DRUMBEAT_CACHE": ""}) == Path("/b/drumbeat")
    assert cache_folder({"HOME": str(tmp_path)}) == tmp_path / ".cache" / "drumbeat"


def test_a_home_that_does_not_exist_yet_can_be_made(tmp_path: Path) -> None:
    assert cache_folder({"HOME": str(tmp_path / "new")}) == tmp_path / "new" / ".cache" / "drumbeat"


@pytest.mark.parametrize("home", ["{file}", "relative/path"])
def test_a_home_that_cannot_hold_anything_is_passed_over(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").touch()
    assert cache_folder({"HOME": home.format(file=tmp_path / "file")}) == CHECKOUT / ".drumbeat" / "cache"
