"""Descriptions: what they can say, and that every mistake is named by its key."""

from contextlib import suppress
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.tools.apply.description import DescriptionError, parse
from insula.tools.apply.order import groups


def test_a_whole_description() -> None:
    wanted = parse(
        """
        [labels]
        mint = "0x00ff7f"
        [system]
        default_netvm = ""
        stats_interval = 5
        clockvm = { default = true }
        [qubes.work]
        class = "AppVM"
        label = "mint"
        template = "debian"
        tags = ["a"]
        notes = "text"
        firewall = ["action=drop"]
        properties = { memory = 512, debug = true, netvm = "", kernel = { default = true } }
        features = { os = "Linux", gui = false, x = { default = true } }
        services = { cups = true, crond = false }
        volumes = { private = "2GiB", root = 1024 }
        [qubes.old]
        state = "absent"
        """,
        "f",
    )
    work = wanted.qubes["work"]
    assert wanted.system == {"default_netvm": "", "stats_interval": "5", "clockvm": None}
    assert work.properties == {"memory": "512", "debug": "True", "netvm": "", "kernel": None}
    assert work.features == {
        "os": "Linux", "gui": "", "x": None, "service.cups": "1", "service.crond": "",
    }  # fmt: skip
    assert work.volumes == {"private": 2 << 30, "root": 1024}
    assert (sorted(work.tags or ()), work.notes, len(work.firewall or ())) == (["a"], "text", 1)
    assert wanted.qubes["old"].absent
    assert parse("", "f").qubes == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a =", "f: Invalid value (at end of document)"),
        (f"a = {'1' * 5000}", "f: Exceeds the limit"),
        (f"a = {'[' * 5000}", "f: it is nested too deeply"),
        ("[qube.a]", "f: qube: there is no such key"),
        ("qubes = 1", "f: qubes: a table is wanted"),
        ("[policy]\na = 'b'", "f: policy: this instance cannot have policy files"),
        ("[labels]\na = 'green'", "f: labels.a: a colour is wanted"),
        ("[system]\na = 1.5", "f: system.a: a text, a number"),
        ("[system]\na = 'ä'", "f: system.a: ASCII is wanted"),
        ("[system]\na = { x = 1 }", "f: system.a: of tables there is only"),
        ("[qubes.'a b']", "f: qubes.a b: not a name of a qube"),
        ("[qubes.a]\ntemplat = 'b'", "f: qubes.a.templat: there is no such key"),
        ("[qubes.a]\nlabel = ''", "f: qubes.a.label: a name is wanted"),
        ("[qubes.a]\nclass = 1", "f: qubes.a.class: a name is wanted"),
        ("[qubes.a]\nexact = 1", "f: qubes.a.exact: true or false is wanted"),
        ("[qubes.a]\nstate = 'gone'", 'f: qubes.a.state: is "present" or "absent"'),
        ("[qubes.a]\nstate = 'absent'\nlabel = 'red'", "f: qubes.a.state: a qube that is to be"),
        ("[qubes.a.properties]\nlabel = 'red'", "is qubes.a.label here"),
        ("[qubes.a.properties]\nqid = 1", "f: qubes.a.properties.qid: cannot be chosen"),
        ("[qubes.a.features]\n'a b' = ''", "f: qubes.a.features.a b: not a name of a feature"),
        ("[qubes.a.features]\nx = 'ä'", "f: qubes.a.features.x: printable ASCII"),
        ("[qubes.a.features]\npreload-dispvm = ''", "preload-dispvm: is the daemon's own"),
        ("[qubes.a.services]\nx = 'on'", "f: qubes.a.services.x: true or false"),
        ("[qubes.a.services]\n'x y' = true", "f: qubes.a.services.x y: not a name"),
        ("[qubes.a.services]\nmeminfo-writer = true", "set properties.maxmem instead"),
        (
            "[qubes.a]\nservices = { x = true }\nfeatures = { 'service.x' = '' }",
            "f: qubes.a.services.x: is given as qubes.a.features.service.x, too",
        ),
        ("[qubes.a]\ntags = 'x'", "f: qubes.a.tags: a list of texts is wanted"),
        ("[qubes.a]\ntags = ['x y']", "f: qubes.a.tags: not a tag: 'x y'"),
        ("[qubes.a]\nnotes = 1", "f: qubes.a.notes: a text is wanted"),
        ('[qubes.a]\nnotes = "\\u202e"', "f: qubes.a.notes: a character that cannot be shown"),
        ("[qubes.a]\nfirewall = ['action=drop', 'x']", "f: qubes.a.firewall[1]: not an item"),
        ("[qubes.a.volumes]\nprivate = 1.5", "f: qubes.a.volumes.private: a size is wanted"),
        ("[qubes.a.volumes]\nprivate = '2 TB'", "f: qubes.a.volumes.private: not a size"),
        ("[qubes.a.volumes]\nprivate = -1", "f: qubes.a.volumes.private: not a size"),
    ],
)
def test_a_mistake_is_named_by_its_key(text: str, told: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        parse(text, "f")
    assert told in str(caught.value)


KEYS = st.sampled_from(
    ["qubes", "labels", "system", "a", "properties", "features", "services", "tags", "notes",
     "firewall", "volumes", "state", "exact", "class", "label", "template", "clone", "default"]
) | st.text(max_size=3)  # fmt: skip
LEAVES = (
    st.text(max_size=5) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats()
    | st.dates() | st.sampled_from(["absent", "1GiB", "action=drop", "0x00ff00"])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(
    top=st.dictionaries(KEYS, VALUES, max_size=4),
    qube=st.dictionaries(KEYS, VALUES, max_size=5),
)
@settings(deadline=None)
def test_any_values_are_a_description_or_a_mistake(top: dict[str, Any], qube: Any) -> None:
    with suppress(DescriptionError):
        parse(tomli_w.dumps({**top, "qubes": {"a": qube}}), "f")


@given(text=st.text())
def test_any_text_is_a_description_or_a_mistake(text: str) -> None:
    with suppress(DescriptionError):
        parse(text, "f")


def test_a_key_that_is_nearly_one_is_recognised() -> None:
    with pytest.raises(DescriptionError) as caught:
        parse("[qubes.a]\ntemplat = 'b'", "f")
    assert caught.value.hint == "Is template meant?"


def test_what_is_needed_comes_first_and_circles_together() -> None:
    needs = {
        "app": {"template", "netvm"},
        "netvm": {"template", "gone"},
        "a": {"b"},
        "template": {"template"},
        "b": {"a", "app"},
    }
    assert groups(needs) == [["template"], ["netvm"], ["app"], ["a", "b"]]
    assert groups({str(one): {str(one + 1)} for one in range(3000)})[0] == ["2999"]
