#!/usr/bin/env python
"""Django's command line for this project."""

from __future__ import annotations

import sys

from zenskar.starting import command_line

if __name__ == "__main__":
    command_line(sys.argv)
