from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import LazySettings
from django.core.exceptions import ImproperlyConfigured

from dbresilience.typed_settings import choice, number, pairs, setting, truth, whole

pytestmark = [pytest.mark.feature("B11")]


def test_it_takes_the_setting_before_the_environment_before_the_default(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = number("ONE_SETTING", 1, 0, 9)
    monkeypatch.setenv("ONE_SETTING", " 2.5 ")
    environments = number("ONE_SETTING", 1, 0, 9)
    settings.ONE_SETTING = 3

    assert (default, environments, number("ONE_SETTING", 1, 0, 9)) == (1, 2.5, 3)


def test_it_takes_an_empty_variable_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_SETTING", "  ")

    assert setting("ONE_SETTING", "default") == "default"
    assert whole("ONE_SETTING", 7, 0, 9) == 7


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("many", "must be a number, not 'many'"),
        ("nan", "must be between 0 and 9"),
        ("inf", "must be between 0 and 9"),
        (True, "must be a number, not True"),
        ([1], r"must be a number, not \[1\]"),
        (-1, "must be between 0 and 9, not -1"),
        ("10", "must be between 0 and 9, not 10"),
        ("2.5", "must be a whole number, not 2.5"),
        ("x" * 500, "must be a number, not 'x{59}…"),
    ],
)
def test_it_refuses_what_is_no_whole_number_in_range(settings: LazySettings, raw: object, reason: str) -> None:
    settings.ONE_SETTING = raw

    with pytest.raises(ImproperlyConfigured, match=f"^ONE_SETTING {reason}"):
        whole("ONE_SETTING", 1, 0, 9)


@pytest.mark.parametrize(("raw", "value"), [("3", 3), ("3.0", 3), (4, 4), ("1_0", 10), ("1e1", 10)])
def test_it_takes_whole_numbers_however_they_are_written(settings: LazySettings, raw: object, value: int) -> None:
    settings.ONE_SETTING = raw

    assert whole("ONE_SETTING", 1, 0, 10) == value


@pytest.mark.parametrize(("raw", "value"), [("yes", True), ("OFF", False), (True, True), (0, False), ("1", True)])
def test_it_takes_words_for_truth(settings: LazySettings, raw: object, value: bool) -> None:
    settings.ONE_SETTING = raw

    assert truth("ONE_SETTING", default=not value) is value


def test_it_refuses_other_words(settings: LazySettings) -> None:
    settings.ONE_SETTING = "maybe"

    with pytest.raises(ImproperlyConfigured, match="ONE_SETTING must be true or false, not 'maybe'"):
        truth("ONE_SETTING", default=True)
    with pytest.raises(ImproperlyConfigured, match="ONE_SETTING must be one of a, b, not 'maybe'"):
        choice("ONE_SETTING", ("a", "b"))


def test_it_reads_pairs_and_shows_none_of_them_when_it_cannot(settings: LazySettings) -> None:
    settings.ONE_SETTING = "sasl.username=me, sasl.password=a=b"
    found = pairs("ONE_SETTING")
    settings.ONE_SETTING = "secret"

    assert found == {"sasl.username": "me", "sasl.password": "a=b"}
    with pytest.raises(ImproperlyConfigured) as caught:
        pairs("ONE_SETTING")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DB_POOL_SIZE", "-1", "DB_POOL_SIZE must be between 0 and 1000, not -1."),
        ("DB_PROCESSES", "a few", "DB_PROCESSES must be a number, not 'a few'."),
        ("SYNC_LEASE", "1", "SYNC_LEASE must be between 20 and 3600, not 1."),
        ("LOGIN_ATTEMPTS", "0", "LOGIN_ATTEMPTS must be between 1 and 1000000, not 0."),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(name: str, value: str, reason: str) -> None:
    answer = subprocess.run(
        [sys.executable, "manage.py", "check"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 1
    assert answer.stderr == f"Not started: {reason}\n"
