"""A parser for whose command lines it does not matter whether options or values come first."""

import argparse
from collections.abc import Sequence


class MixedParser(argparse.ArgumentParser):
    """First reads the options, wherever they stand before --, then the values.

    argparse itself gives values that may be missing to whatever comes first, and its own
    parse_intermixed_args takes what follows -- for options, too. Where there are sub-commands, or
    words that belong to another program, order matters and is argparse's.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Read words, and return those that are not known as well."""
        in_order = (argparse.PARSER, argparse.REMAINDER)
        if args is None or any(one.nargs in in_order for one in self._actions):
            return super().parse_known_args(args, namespace)
        words = list(args)
        end = words.index("--") if "--" in words else len(words)
        found, given = self._options_of(words[:end], namespace)
        unknown = [word for word in given if self._looks_like_an_option(word)]
        values = [word for word in given if word not in unknown] + words[end + 1 :]
        found, further = self._values_of(values, found)
        return found, [*unknown, *further]

    def _options_of(
        self, words: Sequence[str], namespace: argparse.Namespace | None
    ) -> tuple[argparse.Namespace, list[str]]:
        values = [one for one in self._actions if not one.option_strings]
        # What is set aside is put back; the texts of errors show the whole usage.
        aside = [(one, one.nargs, one.default) for one in values]
        usage, self.usage = self.usage, self.format_usage().removeprefix("usage: ").rstrip("\n")
        try:
            for one in values:
                one.nargs = one.default = argparse.SUPPRESS
            return super().parse_known_args(words, namespace)
        finally:
            self.usage = usage
            for one, nargs, default in aside:
                one.nargs, one.default = nargs, default

    def _values_of(
        self, values: Sequence[str], found: argparse.Namespace
    ) -> tuple[argparse.Namespace, list[str]]:
        # Options that have to be there have been looked for.
        wanted: list[argparse.Action | argparse._MutuallyExclusiveGroup] = [
            one for one in self._mutually_exclusive_groups if one.required
        ]
        wanted += [one for one in self._actions if one.option_strings and one.required]
        try:
            for one_wanted in wanted:
                one_wanted.required = False
            found, further = super().parse_known_args(["--", *values] if values else [], found)
            return found, further[1:] if further[:1] == ["--"] else further
        finally:
            for one_wanted in wanted:
                one_wanted.required = True

    def _looks_like_an_option(self, word: str) -> bool:
        is_number = self._negative_number_matcher.match(word) is not None
        return word[:1] in self.prefix_chars and len(word) > 1 and " " not in word and not is_number
