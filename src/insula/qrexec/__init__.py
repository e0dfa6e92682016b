"""qrexec's ends: what the agent in a qube and the programs of dom0 have in common."""
