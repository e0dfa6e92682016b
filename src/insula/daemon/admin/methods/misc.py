"""What qubes tell of themselves (admin-api.md section 4.14)."""

from insula.daemon.admin.calls import Method

METHODS: dict[str, Method] = {}
