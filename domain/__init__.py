"""Decisions, pure: no I/O, no clock, no framework but pydantic."""
