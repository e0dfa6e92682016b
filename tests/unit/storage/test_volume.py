"""Volumes as values: their states, and the forms that a store keeps."""

import json
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.daemon.model.volume import Revision, Volume

from .conftest import saved

LAYER_NAMES = st.from_regex(r"[1-9][0-9]{0,5}(-[1-9][0-9]{0,5})?\.(qcow2|raw)", fullmatch=True)
CHAINS = st.lists(LAYER_NAMES, max_size=5).map(tuple)


@given(
    layers=CHAINS, former=st.lists(CHAINS, max_size=3), rw=st.booleans(), keep=st.integers(-1, 9)
)
def test_what_a_store_keeps_of_a_volume_is_that_volume(
    layers: tuple[str, ...], former: list[tuple[str, ...]], rw: bool, keep: int
) -> None:
    revisions = tuple(Revision(number, 7, chain) for number, chain in enumerate(former))
    volume = replace(
        saved(), layers=layers, revisions=revisions, rw=rw, revisions_to_keep=keep, number=12
    )
    assert Volume.from_json(json.loads(json.dumps(volume.to_json()))) == volume


@pytest.mark.parametrize(("keep", "kept"), [(-1, 0), (0, 0), (1, 1), (2, 2), (9, 4)])
def test_as_many_revisions_stay_as_are_to_be_kept(keep: int, kept: int) -> None:
    volume = replace(saved(), revisions_to_keep=keep)
    for _ in range(4):
        volume = volume.advanced((*volume.layers, volume.work), 0)
    assert len(volume.revisions) == kept
    assert volume.layers == ("1.qcow2", "2.qcow2", "3.qcow2", "4.qcow2")


@given(steps=st.lists(st.sampled_from(["stop", "revert", "merge"]), max_size=30))
def test_no_two_states_share_a_name_nor_two_starts_a_work_layer(steps: list[str]) -> None:
    volume = replace(saved(), revisions_to_keep=2)
    states, works = {volume.state}, {volume.work}
    for step in steps:
        match step:
            case "stop":
                volume = volume.advanced((*volume.layers, volume.work), 0)
            case "revert" if volume.revisions:
                volume = volume.reverted(volume.revisions[0].number, 0)
            case "merge" if len(volume.layers) > 1:
                volume = volume.merged(volume.layers[:2], f"{len(states)}-{len(states)}.qcow2")
                continue
            case _:
                continue
        assert volume.state not in states
        assert volume.work not in works
        states.add(volume.state)
        works.add(volume.work)


def test_unknown_revision_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        saved().reverted(3, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../root"},
        {"name": ""},
        {"size": 0},
        {"size": 513},
        {"size": 1 << 60},
        {"snap_on_start": True},
        {"layers": ("../1.qcow2",)},
        {"layers": ("1.vmdk",)},
        {"layers": ("1.qcow2\n",)},
        {"revisions": (Revision(1, 0, ("/etc/shadow",)),)},
    ],
)
def test_volume_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    loaded = saved().to_json() | {"owner": str(uuid4())}
    if "revisions" in fields:
        fields = {"revisions": [{"number": 1, "created": 0, "layers": ["/etc/shadow"]}]}
    with pytest.raises(ValueError, match="cannot"):
        Volume.from_json(loaded | fields)


def test_sizes_are_those_of_the_admin_api() -> None:
    volume = Volume(owner=UUID(int=0), name="root", size=10_737_418_240)
    assert not volume.persistent
    assert volume.state == "00000000-0000-0000-0000-000000000000/root@0"
