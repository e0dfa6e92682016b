"""Programs of dom0 that face what qubes send, each in a process of its own."""
