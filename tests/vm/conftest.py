"""One instance, one template and one snapshot serve a whole run."""

import os
from collections.abc import Iterator

import pytest

from tests.vm.instance import BUILD_TIMEOUT, Instance
from tests.vm.world import World, world


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World | None]:
    """What is beyond the computer that is tested; None where nobody may make one."""
    if os.geteuid() != 0:
        yield None
        return
    with world(tmp_path_factory.mktemp("outside") / "notes") as made:
        yield made


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory, outside: World | None) -> Iterator[Instance]:
    """An instance that is up, with the template debian-12 and its snapshot."""
    made = Instance.make(tmp_path_factory.mktemp("instance"))
    if outside is not None:
        made.within = outside.words()
    made.up()
    try:
        made.say("insula", "template", "build", "debian-12", timeout=BUILD_TIMEOUT)
        yield made
    finally:
        made.down()


@pytest.fixture(autouse=True)
def logs_of_a_failure(request: pytest.FixtureRequest, instance: Instance) -> Iterator[None]:
    """Show the instance's logs when a test failed."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(instance.logs())
