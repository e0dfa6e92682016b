"""qubes-vm-update: updates of templates and standalone qubes."""
