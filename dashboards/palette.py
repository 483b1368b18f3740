"""Colours of the report page, light and dark: apart for colour-blind eyes, with enough contrast."""

from __future__ import annotations

from typing import Final

LIGHT: Final = {
    "page": "#f5f6f8",
    "surface": "#ffffff",
    "sunken": "#eef0f4",
    "line": "#dde1e8",
    "shadow": "#aab2bf",
    "text": "#18202b",
    "muted": "#576172",
    "accent": "#0b5fa5",
    "critical": "#b3261e",
    "critical_soft": "#fbe9e7",
    "warning": "#8a5a00",
    "warning_soft": "#fdf1d8",
    "info": "#0b5fa5",
    "info_soft": "#e5f0fa",
    "data_wait": "#e69f00",
    "forward": "#0b66ab",
    "backward": "#63b1e5",
    "optimizer": "#0f8a6a",
    "other": "#b3bac6",
    "unrecorded": "#d5dae2",
    "collective": "#b0568f",
    "gc": "#d1541b",
    "scope": "#8b95a5",
    "merged": "#c3cad5",
}

DARK: Final = {
    "page": "#10141a",
    "surface": "#181e26",
    "sunken": "#212933",
    "line": "#303a47",
    "shadow": "#000000",
    "text": "#e8ecf2",
    "muted": "#a0abbb",
    "accent": "#74b7f2",
    "critical": "#ff9a8f",
    "critical_soft": "#43201e",
    "warning": "#f4c35c",
    "warning_soft": "#3b2e12",
    "info": "#86c2f5",
    "info_soft": "#16304a",
    "data_wait": "#f0b23a",
    "forward": "#3587cb",
    "backward": "#93cdf2",
    "optimizer": "#36ad8b",
    "other": "#6a7484",
    "unrecorded": "#3a4452",
    "collective": "#d88abb",
    "gc": "#f07c45",
    "scope": "#7d8898",
    "merged": "#4b5665",
}


def css_variables() -> str:
    """Both palettes as custom properties, chosen by the reader's system; paper is light."""
    light, dark = (
        "".join(f"--{name.replace('_', '-')}:{colour};" for name, colour in palette.items())
        for palette in (LIGHT, DARK)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    )
