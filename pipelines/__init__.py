"""The DVC stages: each reads params.yaml, calls emseg, and writes its outputs."""

import sys
from typing import Any

_excepthook = sys.excepthook


def _quiet_when_stopped(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    # While a stage still imports what it needs, `run_stage` is not there yet.
    if not issubclass(kind, KeyboardInterrupt):
        _excepthook(kind, error, trace)


sys.excepthook = _quiet_when_stopped
