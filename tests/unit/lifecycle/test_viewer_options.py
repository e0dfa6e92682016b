"""Options of viewers from features: a qube's own before dom0's, and none that a viewer refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.daemon.lifecycle.viewer_options import _OPTIONS, viewer_options
from insula.viewer.config import parse

FEATURES = [f"gui-{name.replace('_', '-')}" for name in _OPTIONS]
DEFAULTS = [f"gui-default-{name.replace('_', '-')}" for name in _OPTIONS]


@pytest.mark.parametrize(
    ("own", "system", "found"),
    [
        ({}, {}, {}),
        ({"gui-allow-fullscreen": "1"}, {}, {"allow_fullscreen": True}),
        ({"gui-allow-fullscreen": "0"}, {}, {"allow_fullscreen": True}),
        ({"gui-allow-fullscreen": ""}, {"gui-default-allow-fullscreen": "1"},
         {"allow_fullscreen": False}),
        ({}, {"gui-default-allow-utf8-titles": "1"}, {"allow_utf8_titles": True}),
        ({"gui-override-redirect": "disable"}, {}, {"override_redirect": "disabled"}),
        ({"gui-override-redirect": "never"}, {}, {}),
        ({"gui-window-background-color": "0x101010"}, {}, {"window_background_color": "0x101010"}),
        ({"gui-window-background-color": "pink"}, {}, {}),
        ({"rpc-clipboard": "1"}, {"rpc-clipboard": ""}, {"rpc_clipboard": True}),
        ({"gui-trayicon-mode": "tint+border1"}, {}, {"trayicon_mode": "tint+border1"}),
        ({"gui-trayicon-mode": "pink"}, {}, {}),
        ({"gui-secure-copy-sequence": "Mod4-c"}, {}, {"secure_copy_sequence": "Mod4-c"}),
        ({"gui-secure-paste-sequence": "Ctrl-Ins"}, {}, {}),
        ({"gui-max-clipboard-size": "256"}, {}, {"max_clipboard_size": 256}),
        ({"gui-max-clipboard-size": "255"}, {}, {}),
        ({"gui-events-max-delay": "5000"}, {}, {"events_max_delay": 5000}),
        ({"gui-events-max-delay": "5001"}, {}, {}),
        ({"gui-windows-count-limit": "20"}, {}, {"windows_count_limit": 20}),
        ({"gui-windows-count-limit": "0"}, {}, {}),
        ({"gui-windows-count-limit": "999999"}, {}, {}),
    ],
)  # fmt: skip
def test_options_are_read(
    own: dict[str, str], system: dict[str, str], found: dict[str, object]
) -> None:
    assert viewer_options(own, system) == found


@given(
    own=st.dictionaries(st.sampled_from(FEATURES), st.text(max_size=12)),
    system=st.dictionaries(st.sampled_from(DEFAULTS), st.text(max_size=12)),
)
def test_whatever_the_features_a_viewer_takes_the_options(
    own: dict[str, str], system: dict[str, str]
) -> None:
    options = viewer_options(own, system)
    text = json.dumps({"name": "work", "color": "3465a4", "label": 6, "options": options})
    assert parse(text).name == "work"
