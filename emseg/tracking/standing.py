"""How every registered version stands against the champion."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from emseg.metrics.scoring import LOWER_IS_BETTER
from emseg.reporting.leaderboard import PRIMARY_METRIC
from emseg.tracking.promotion import are_comparable, difference
from emseg.tracking.registry import CHAMPION, Version

_SHOWN = ("v_rand", "v_info", "pixel_error", "dice")
_CONFIDENCE = 0.95


def standings(every: list[Version]) -> list[dict[str, Any]]:
    """Versions grouped by what they were tested on, the champion's group first, best V_rand first.

    Each group is {dataset, protocol, fold, data_digest, leaks, has_champion, versions}; a version is {version, model,
    seed, aliases, metrics, commit, difference to the champion (None in groups without it)}.
    """
    champion = next((version for version in every if CHAMPION in version.aliases), None)
    groups: list[list[Version]] = []
    for version in every:
        own = next((group for group in groups if are_comparable(group[0], version)), None)
        if own is None:
            groups.append([version])
        else:
            own.append(version)
    described = [_group(group, champion, every) for group in groups]
    return sorted(described, key=lambda group: not group["has_champion"])


def as_tables(groups: list[dict[str, Any]]) -> list[tuple[str, pd.DataFrame]]:
    """Title and table of each group, as text."""
    tables = []
    for group in groups:
        leaks = ", LEAKS" if group["leaks"] else ""
        apart = "" if group["has_champion"] else "; not ranked with the champion"
        tested_on = f"{group['dataset']}, protocol {group['protocol']}{leaks}, fold {group['fold']}"
        title = f"{tested_on}, data {group['data_digest'][:8]}{apart}"
        rows = []
        for version in group["versions"]:
            gap = version["difference"]
            rows.append(
                {
                    "version": str(version["version"]),
                    "model": " ".join([version["model"], *(f"({alias})" for alias in version["aliases"])]),
                    "seed": str(version["seed"]),
                    **{
                        name: f"{m['mean']:.4f} [{m['low']:.4f}, {m['high']:.4f}]"
                        for name, m in version["metrics"].items()
                    },
                    "V_rand to champion": f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]" if gap else "",
                    "commit": version["commit"],
                }
            )
        tables.append((title, pd.DataFrame(rows)))
    return tables


def _group(group: list[Version], champion: Version | None, every: list[Version]) -> dict[str, Any]:
    first = group[0]
    here = champion if champion is not None and are_comparable(first, champion) else None
    sign = 1 if PRIMARY_METRIC in LOWER_IS_BETTER else -1
    return {
        **{key: first.metrics[key] for key in ("dataset", "protocol", "fold", "data_digest", "leaks")},
        "has_champion": here is not None,
        "versions": [
            {
                "version": version.number,
                "model": version.facts["model"],
                "seed": version.facts["seed"],
                "aliases": list(version.aliases),
                "metrics": {name: version.metrics[name] for name in _SHOWN},
                "commit": str(version.facts["git_commit"])[:10] + ("+" if version.facts["git_dirty"] else ""),
                "difference": asdict(difference(version, here, every, PRIMARY_METRIC, _CONFIDENCE))
                if here is not None and here.number != version.number
                else None,
            }
            for version in sorted(group, key=lambda v: sign * v.metrics[PRIMARY_METRIC]["mean"])
        ],
    }
