"""What a qube's kernel is told on its command line; part of a golden snapshot's key."""

_OPTIONS = (
    *("root=/dev/vda", "rootfstype=ext4", "rw", "quiet", "console=ttyS0", "insula=1"),
    # Nothing that wakes an idle qube, and nothing that looks for what no qube has.
    *(
        "nowatchdog",
        "no_timer_check",
        "audit=0",
        "8250.nr_uarts=1",
        "noresume",
        "memhp_default_state=online_movable",
    ),
)
_WITHOUT_WINDOWS = "insula.gui=0"  # The template's units for X and windows stay out.


def kernel_options(*, gui: bool) -> str:
    """The options of a qube with or without an X server."""
    return " ".join(_OPTIONS if gui else (*_OPTIONS, _WITHOUT_WINDOWS))
