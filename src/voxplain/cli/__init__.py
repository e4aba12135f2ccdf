"""The command line: one file a verb, thin over the public Python interface."""

from voxplain.cli.app import app, main

__all__ = ["app", "main"]
