"""What came from elsewhere is inert where it is shown."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emseg import text
from emseg.text import markdown, plain, without_secrets


def test_doctests():
    result = doctest.testmod(text)
    assert (result.failed, result.attempted) == (0, 4)


@given(st.text() | st.text("\x1b[]\\;0m\x07\x9b\u202e\n<>|`*_[]()!#&@:/w.hp ", max_size=40))
def test_nothing_a_terminal_or_markdown_obeys_is_left(odd):
    shown = plain(odd)
    assert shown.isprintable()
    assert shown.splitlines() in ([], [shown])
    escaped = markdown(odd)
    assert "<" not in escaped
    assert ">" not in escaped
    assert "://" not in escaped
    # Each mark has a backslash of its own before it.
    rest = escaped.replace("\\\\", "")
    for mark in "`*[]|!":
        assert rest.count(mark) == rest.count(f"\\{mark}")
    assert plain(shown) == shown


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg://lab:sesame@db/mlflow",
        "postgresql://lab:se@sa/me:sesame@db:5432/mlflow?sslpassword=sesame",
        "https://sesame@mlflow.lab",
        "https://ada:sesame@mlflow.lab:5000/path",
        "postgresql://db/mlflow?user=lab&password=sesame",
        "host=db password='sesame' user=lab",
    ],
)
def test_no_password_or_token_is_left(uri):
    assert "sesame" not in without_secrets(f"{uri} cannot be reached")
    assert "cannot be reached" in without_secrets(f"{uri} cannot be reached")


def test_what_holds_no_secret_stays():
    for told in ("models:/cortex@champion", "http://127.0.0.1:5000/#/experiments/1", "sqlite:////a/b.db"):
        assert without_secrets(told) == told
