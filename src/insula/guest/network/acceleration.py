"""Established connections of clients take a short way through the kernel.

Source: network-firewall.md section 4. What takes it does not pass the filters again: after rules
became tighter, and connections were forgotten, the table has to be replaced.
"""

from collections.abc import Iterable

TABLE = "inet qubes-nat-accel"


def rules(cards: Iterable[str]) -> str:
    """For nft: the table anew, which ends what took the short way."""
    devices = ", ".join(f'"{name}"' for name in sorted(cards))
    return f"""\
table {TABLE}
delete table {TABLE}
table {TABLE} {{
    flowtable clients {{
        hook ingress priority filter
        devices = {{ {devices} }}
    }}
    chain forward {{
        type filter hook forward priority filter + 5; policy accept;
        meta l4proto {{ tcp, udp }} iifgroup 2 oifgroup 1 ct state established flow add @clients
    }}
}}
"""
