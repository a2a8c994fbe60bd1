"""``make lint``: every static check at once, each with its seconds; all of what fails is shown.

Run as ``python -m tests.lint``. It needs no server: what wants settings gets those of a production of its own.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

PRODUCTION = {
    "SECRET_KEY": secrets.token_hex(40),
    "ALLOWED_HOSTS": "zenskar.example.com",
    "CSRF_TRUSTED_ORIGINS": "https://zenskar.example.com",
    "DATABASE_URL": "postgresql://zenskar@127.0.0.1:1/zenskar",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "STRIPE_API_KEY": "sk_test_" + secrets.token_hex(12),
    "STRIPE_WEBHOOK_SECRET": "whsec_" + secrets.token_hex(16),
    "METRICS_TOKEN": secrets.token_hex(20),
    "PETSTORE": "true",
}
"""A complete production environment: what `check --deploy` is asked about."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one check ended."""

    name: str
    passed: bool
    seconds: float
    output: str


def main() -> int:
    python = sys.executable
    checks: dict[str, Callable[[], tuple[bool, str]]] = {
        "mypy": _command(python, "-m", "mypy"),
        "ruff check": _command(BIN / "ruff", "check", "."),
        "ruff format": _command(BIN / "ruff", "format", "--check", "."),
        "import-linter": _command(BIN / "lint-imports", "--no-cache"),
        # Nothing listens at the address; the check compares models with files, and only warns of what it cannot ask.
        "migrations": _command(python, "-W", "ignore", "manage.py", "makemigrations", "--check", "--dry-run"),
        "deployment": _command(python, "manage.py", "check", "--deploy", "--fail-level", "WARNING"),
        "requirements": lambda: _verdict(requirement_troubles(ROOT)),
    }
    failed = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        for future in as_completed([pool.submit(_timed, name, check) for name, check in checks.items()]):
            result = future.result()
            print(f"{result.seconds:6.1f} s {result.name}: {'fine' if result.passed else 'FAILED'}", flush=True)
            if not result.passed:
                failed += 1
                print(result.output.rstrip(), flush=True)
    return 1 if failed else 0


def requirement_troubles(root: Path) -> list[str]:
    """What a ``requirements*.in`` asks for and its compiled file does not pin, or pins otherwise."""
    troubles: list[str] = []
    for source in sorted(root.glob("requirements*.in")):
        pinned = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", source.with_suffix(".txt").read_text(), re.MULTILINE))
        versions = {_normal(name): version for name, version in pinned.items()}
        for line in source.read_text().splitlines():
            if not line.strip() or line.startswith(("#", "-")):
                continue
            wanted = Requirement(line)
            version = versions.get(_normal(wanted.name))
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                troubles.append(f"{source.name}: {line} is {version or 'missing'} in {source.with_suffix('.txt').name}")
    return troubles


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _command(*words: str | Path) -> Callable[[], tuple[bool, str]]:
    def run() -> tuple[bool, str]:
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), **PRODUCTION}
        answer = subprocess.run(
            [str(word) for word in words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        return answer.returncode == 0, answer.stdout + answer.stderr

    return run


def _verdict(troubles: list[str]) -> tuple[bool, str]:
    return not troubles, "\n".join(troubles)


def _timed(name: str, check: Callable[[], tuple[bool, str]]) -> Result:
    begun = time.monotonic()
    passed, output = check()
    return Result(name, passed, time.monotonic() - begun, output)


if __name__ == "__main__":
    sys.exit(main())
