"""How a measurement hands its figures over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def figures_tell(figures: Any, file: Path | None) -> None:
    """Print figures as JSON, and write them to ``file`` too if there is one."""
    text = json.dumps(figures, indent=2)
    if file:
        file.write_text(text + "\n")
    print(text)
