"""Policies looked at and tried; the engine is protocol/policy."""
