"""What tests with real packets share. They never touch the network of whoever runs them."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import insula.guest
from tests.net.chain import Chain, chain, connect
from tests.net.enforced import Provider, Resolver
from tests.net.world import BOTH, IPV4, Family, World, world

BASE_RULES = Path(insula.guest.__file__).with_name("files") / "firewall" / "base.nft"


@pytest.fixture
def net() -> Iterator[World]:
    """A provider with base rules, and two clients that may use their addresses."""
    with world() as made:
        made.provider.run("nft", "-f", str(BASE_RULES))
        for number in range(2):
            made.admit(number, *BOTH)
        yield made


@pytest.fixture(params=BOTH, ids=lambda family: f"IPv{family.version}")
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Chain]:
    with chain(tmp_path) as made:
        yield made


@pytest.fixture
def joined(row: Chain) -> Chain:
    connect(row.firewall, row.client)
    return row


@pytest.fixture
def resolver(net: World) -> Iterator[Resolver]:
    """The DNS server that the provider asks."""
    with closing(Resolver(net)) as made:
        yield made


@pytest.fixture
def provider(net: World, resolver: Resolver) -> Iterator[Provider]:
    """The provider with its database and resolver; its program has not been started."""
    assert resolver.at == IPV4.served[2]
    with (
        tempfile.TemporaryDirectory(prefix="firewall-") as directory,
        closing(Provider(net, Path(directory))) as made,
    ):
        yield made


@pytest.fixture
def enforcing(provider: Provider) -> Provider:
    """The same, with its program at work."""
    provider.start()
    return provider
