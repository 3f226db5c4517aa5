"""Where a server of ours listens."""

from __future__ import annotations

import socket

from emseg.errors import InputError
from emseg.text import plain


def bound(host: str, port: int) -> socket.socket:
    """A socket that has an address for itself.

    Raises:
        InputError: another program has it, or there is no such address here.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise InputError(f"{plain(host)}:{port} is no address here ({plain(error)})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"port {port} of {plain(host)} cannot be used ({reason.lower()}); choose another with --port"
        ) from error
    return listener
