"""The recipe of a template, and what makes it another one."""

import dataclasses

import pytest

from insula.template.recipe import Recipe
from insula.template.recipes import RECIPES, UnknownRecipeError, find_recipe
from insula.template.tree import TreeFile


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"suite": "trixie"},
        {"packages": ("bash",)},
        {"before": (TreeFile("etc/a", b""),)},
        {"files": (TreeFile("etc/a", b""),)},
        {"setup": "true\n"},
        {"size": 1},
    ],
)
def test_whatever_changes_the_result_changes_the_hash(change: dict[str, object]) -> None:
    recipe = find_recipe("debian-12")
    assert dataclasses.replace(recipe, **change).hash != recipe.hash  # type: ignore[arg-type]


def test_the_same_recipe_has_the_same_hash() -> None:
    assert find_recipe("debian-12").hash == find_recipe("debian-12").hash


def test_an_unknown_recipe_is_told_with_the_known_ones() -> None:
    with pytest.raises(UnknownRecipeError, match="'debian-1'") as caught:
        find_recipe("debian-1")
    assert caught.value.hint == "Known recipes: debian-12"


@pytest.fixture(params=list(RECIPES))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return find_recipe(request.param)


def test_every_unit_that_comes_along_is_enabled_or_pulled_in(recipe: Recipe) -> None:
    units = [
        file.path.rpartition("/")[2] for file in recipe.files if "systemd/system/" in file.path
    ]
    texts = b"\n".join(file.content for file in recipe.files).decode()
    for unit in units:
        pulled_in = f"Slice={unit}" in texts or (
            unit == "usr-lib-insula.mount" and "RequiresMountsFor=/usr/lib/insula" in texts
        )
        assert unit in recipe.setup or pulled_in or started_by_another(unit, units), unit


def started_by_another(unit: str, units: list[str]) -> bool:
    """Whether a socket or a timer starts a service."""
    if not unit.endswith(".service"):
        return False
    name = unit.removesuffix(".service").removesuffix("@")
    return any(name + end in units for end in (".socket", ".timer"))


def test_a_unit_to_be_enabled_says_where(recipe: Recipe) -> None:
    files = [file for file in recipe.files if "systemd/system/" in file.path]
    units = [file.path.rpartition("/")[2] for file in files]
    for file in files:
        unit = file.path.rpartition("/")[2]
        if "/dbus-1/" in file.path:
            continue  # a bus starts it
        if unit.endswith(".service") and not started_by_another(unit, units):
            assert b"\n[Install]\nWantedBy=" in file.content, file.path


def test_programs_that_come_along_may_be_run(recipe: Recipe) -> None:
    programs = [file for file in recipe.files if file.path.startswith("usr/libexec/")]
    programs += [file for file in recipe.before if "/hooks/" in file.path]
    assert programs
    assert {file.mode for file in programs} == {0o755}


def test_no_package_is_named_twice(recipe: Recipe) -> None:
    assert len(set(recipe.packages)) == len(recipe.packages)
