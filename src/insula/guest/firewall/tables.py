"""Texts for nft: the tables qubes-firewall, that is what clients may reach.

Source: network-firewall.md section 8.
"""

import subprocess

FAMILIES = {4: "ip", 6: "ip6"}
TABLE = "qubes-firewall"
_NFT = "/usr/sbin/nft"
_TIMEOUT = 60.0  # seconds; a transaction of a thousand rules takes one under emulation


class NotAppliedError(Exception):
    """nft did not take a text; nothing of it is in force."""


def apply(text: str) -> None:
    """Change rules, all at once.

    Raises:
        NotAppliedError: they are as before.
    """
    try:
        done = subprocess.run(
            [_NFT, "-f", "-"],
            input=text,
            text=True,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotAppliedError(str(error)) from None
    if done.returncode:
        raise NotAppliedError(done.stderr[:1000])


def removed() -> str:
    """A text that removes the tables, whether they are there or not."""
    return "".join(
        f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n"
        for family in FAMILIES.values()
    )


def none_enforced() -> None:
    """Let clients reach what they like: this provider does not look at rules of theirs.

    Raises:
        NotAppliedError: they still reach nothing.
    """
    apply(removed())


def closed() -> str:
    """A text that makes the tables anew; no client passes them."""
    return removed() + "".join(
        f"""\
table {family} {TABLE} {{
    set dns-addr {{
        type ipv{version}_addr
    }}
    chain qubes-forward {{
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname != "vif*" accept
        jump qubes-forward
    }}
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
    }}
    chain postrouting {{
        type filter hook postrouting priority raw; policy accept;
    }}
}}
"""
        for version, family in FAMILIES.items()
    )
