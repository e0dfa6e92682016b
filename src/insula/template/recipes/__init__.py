"""The recipes that come with Insula, by the names of their templates."""

from insula.protocol.errors import ReportableError
from insula.template.recipe import Recipe
from insula.template.recipes.debian_12 import debian_12

RECIPES = {"debian-12": debian_12}


class UnknownRecipeError(ReportableError):
    """There is no recipe of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no recipe for a template {name!r}")
        self.hint = f"Known recipes: {', '.join(RECIPES)}"


def find_recipe(name: str) -> Recipe:
    """The recipe of a template.

    Raises:
        UnknownRecipeError: there is none.
    """
    if name not in RECIPES:
        raise UnknownRecipeError(name)
    return RECIPES[name]()
