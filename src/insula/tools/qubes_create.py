"""qubes-create: the store of a new instance."""

from collections.abc import Sequence

from insula.tools.command import Parser, run


def main(argv: Sequence[str] | None = None) -> int:
    """qubes-create."""
    parser = Parser(
        "qubes-create",
        "Make the store of a new instance, which holds dom0 alone.",
        examples={
            "INSULA_HOME=~/other qubes-create": "an instance beside the usual one",
        },
        exit_codes={1: "there is a store already, which stays as it is, or it cannot be made"},
        notes=(
            "insula up does the same where there is none. Nothing is started, and a store that is "
            "there is never touched.",
        ),
    )
    return run(parser, lambda _arguments: _create(), argv)


def _create() -> int:
    from insula.tools.up import new_store  # noqa: PLC0415 - --help does not need it

    new_store()
    return 0
