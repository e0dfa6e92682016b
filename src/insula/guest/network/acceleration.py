"""Established connections of clients take a short way through the kernel.

Source: network-firewall.md section 4. What takes it passes no chain of the filters any more, until
the kernel has forgotten the connection.
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
