"""The fixtures of the commands' tests: the client is what they talk through."""

from tests.unit.tools.conftest import daemon, instance

__all__ = ["daemon", "instance"]
