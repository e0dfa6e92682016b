"""The process that must not die: spawns jails, holds descriptors by name, reaps; parses nothing."""
