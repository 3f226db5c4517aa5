"""Text that came from elsewhere, made fit to be shown: in a terminal, in Markdown, in a message."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links
    r"|\x1b[ -~]?"
)
_MARKDOWN = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]()#+!|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)[^\s]*@")
_PARAMETER = re.compile(
    r"((?:password|passwd|pwd|token|secret|sslpassword|access_key|api_key)\s*=\s*)('[^']*'|\"[^\"]*\"|[^\s&;,]+)",
    re.IGNORECASE,
)


def plain(text: object) -> str:
    r"""One line without control characters and terminal escapes.

    >>> plain("unet2\x1b[31m\nred")
    'unet2 red'
    """
    shown = _ESCAPES.sub("", str(text))
    # Neither printable nor space: control characters, writing directions, half characters.
    kept = (" " if c.isspace() else c if c.isprintable() else "" for c in shown)
    return " ".join("".join(kept).split())


def markdown(text: object) -> str:
    r"""`plain` text in which nothing is Markdown, HTML or a link.

    >>> markdown("<b>a|b</b> https://x.y")
    '&lt;b&gt;a\\|b&lt;/b&gt; https&#58;//x.y'
    """
    escaped = plain(text).translate(_MARKDOWN)
    # Renderers make links of bare addresses, and lists of what begins with a dash.
    escaped = escaped.replace("://", "&#58;//").replace("@", "&#64;")
    escaped = re.sub(r"(?i)\bwww\.", lambda found: found[0][:-1] + "&#46;", escaped)
    return "\\" + escaped if escaped.startswith("-") else escaped


def without_secrets(text: object) -> str:
    """Text whose addresses have lost user, password and token, as messages, files and tags may hold it.

    What stands before an address's last @ goes whole: tokens also stand where the user does.

    >>> without_secrets("postgresql://lab:p@ss@db/mlflow is down")
    'postgresql://db/mlflow is down'
    """
    return _PARAMETER.sub(r"\1***", _USER.sub(r"\1", str(text)))


def spreadsheet(text: object) -> str:
    """`plain` text that a spreadsheet takes for text: what would be a formula gets an apostrophe before it.

    >>> spreadsheet("=1+1")
    "'=1+1"
    """
    shown = plain(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
