"""Which apt sources a template is made from."""

import string

from hypothesis import given
from hypothesis import strategies as st

from insula.template.sources import (
    ARCHIVE_KEY,
    Source,
    debian_sources,
    parse_deb822,
    parse_list,
    render,
)

words = st.text(string.ascii_letters + string.digits + "/:.-", min_size=1)
several = st.lists(words, min_size=1, max_size=3).map(tuple)


def test_one_line_entries_with_and_without_options_are_read() -> None:
    text = """
# deb mirror:/off bookworm main
deb mirror:/debian bookworm main contrib # ours
deb-src mirror:/debian bookworm main
deb [arch=amd64 signed-by=/keys/a.gpg] mirror:/other stable extra
deb broken
"""
    assert list(parse_list(text)) == [
        Source(("mirror:/debian",), ("bookworm",), ("main", "contrib")),
        Source(("mirror:/other",), ("stable",), ("extra",), "/keys/a.gpg"),
    ]


def test_deb822_stanzas_are_read_and_disabled_ones_passed_over() -> None:
    text = """\
# a comment between
Types: deb deb-src
URIs: mirror:/debian
# a comment within
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /keys/a.gpg

Enabled: no
Types: deb
URIs: mirror:/debian
Suites: bookworm-security
Components: main

Types: deb-src
URIs: mirror:/debian
Suites: bookworm
Components: main
"""
    suites = ("bookworm", "bookworm-updates")
    assert list(parse_deb822(text)) == [
        Source(("mirror:/debian",), suites, ("main",), "/keys/a.gpg")
    ]


def kept(source: Source) -> tuple[Source, ...]:
    return debian_sources(iter([source]), "bookworm")


def test_other_suites_and_components_are_cut_away() -> None:
    suites = ("bookworm", "bookworm-backports", "bookworm-security/updates", "bookworm-updates")
    source = Source(("mirror:/debian",), suites, ("main", "extra", "non-free-firmware"))
    assert kept(source) == (
        Source(
            ("mirror:/debian",),
            ("bookworm", "bookworm-updates"),
            ("main", "non-free-firmware"),
            ARCHIVE_KEY,
        ),
    )


def test_a_vendor_with_debians_suite_but_its_own_key_is_left_out() -> None:
    vendor = Source(("mirror:/vendor",), ("bookworm",), ("main",), "/etc/apt/keyrings/vendor.gpg")
    assert kept(vendor) == ()


def test_a_vendor_with_debians_suite_but_no_main_is_left_out() -> None:
    assert kept(Source(("mirror:/vendor",), ("bookworm",), ("stable",))) == ()


def test_a_key_as_text_is_not_debians() -> None:
    key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n.\nmQINBF"
    assert kept(Source(("mirror:/debian",), ("bookworm",), ("main",), key)) == ()


def test_one_foreign_key_beside_debians_is_foreign() -> None:
    names = f"{ARCHIVE_KEY}, /etc/apt/keyrings/vendor.gpg"
    assert kept(Source(("mirror:/debian",), ("bookworm",), ("main",), names)) == ()


def test_the_same_source_twice_counts_once() -> None:
    source = Source(("mirror:/debian",), ("bookworm",), ("main",))
    assert len(debian_sources(iter([source, source]), "bookworm")) == 1


@given(st.lists(st.builds(Source, several, several, several, words), min_size=1).map(tuple))
def test_what_is_rendered_reads_back_the_same(sources: tuple[Source, ...]) -> None:
    assert tuple(parse_deb822(render(sources))) == sources


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert kept_fully(parse_list(text))
    assert kept_fully(parse_deb822(text))


def kept_fully(sources: object) -> bool:
    """Whether every source found names an address and a suite."""
    assert hasattr(sources, "__iter__")
    return all(source.uris and source.suites for source in sources)
