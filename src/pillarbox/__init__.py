"""Pillarbox: a mail server in the tradition of qmail."""

__version__ = "0.1.0"
