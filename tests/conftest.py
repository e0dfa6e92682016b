"""What holds for every test."""

from hypothesis import settings

# An example may take long where other work keeps the processor busy; that is no failure.
settings.register_profile("insula", deadline=None)
settings.load_profile("insula")
