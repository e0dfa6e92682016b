"""Services of a qube: its role's defaults, and what dom0 says instead."""

import pytest

from insula.guest import toggles


@pytest.mark.parametrize(
    ("role", "has", "lacks"),
    [
        ("AppVM", "tracker", "qubes-firewall"),
        ("TemplateVM", "updates-proxy-setup", "qubes-network"),
        ("ProxyVM", "qubes-firewall", "network-manager"),
        ("NetVM", "qubes-updates-proxy", "tracker"),
        ("", "meminfo-writer", "qubes-network"),
    ],
)
def test_a_role_has_services_of_its_own(role: str, has: str, lacks: str) -> None:
    on = toggles.switched_on({"/qubes-vm-type": role})
    assert has in on
    assert lacks not in on


def test_what_dom0_says_goes_before_the_role() -> None:
    on = toggles.switched_on(
        {
            "/qubes-vm-type": "AppVM",
            "/qubes-service/tracker": "0",
            "/qubes-service/cups": "1",
            "/qubes-service/odd": "yes",
            "/qubes-service/../../etc/passwd": "1",
            "/qubes-service/.hidden": "1",
        }
    )
    assert on == {*toggles.switched_on({"/qubes-vm-type": "AppVM"}), "cups"} - {"tracker"}


def test_units_are_started_for_services_that_a_plain_qube_has_not() -> None:
    assert not toggles.waited_for(toggles.switched_on({"/qubes-vm-type": "AppVM"}))
    assert toggles.waited_for(toggles.switched_on({"/qubes-vm-type": "ProxyVM"}))
    assert toggles.waited_for({"split-ssh-client"})
