"""One instance, one template and one snapshot serve a whole run."""

from collections.abc import Iterator

import pytest

from tests.vm.instance import BUILD_TIMEOUT, Instance


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance that is up, with the template debian-12 and its snapshot."""
    made = Instance.make(tmp_path_factory.mktemp("instance"))
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
