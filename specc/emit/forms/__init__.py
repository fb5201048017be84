"""Modules that hold parameters, a file a family."""
