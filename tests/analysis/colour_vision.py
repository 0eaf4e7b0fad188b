"""How colours look to a dichromat, and how far apart two of them are: pure NumPy.

``python -m tests.analysis.colour_vision`` draws ``palette_seen.png``, which lies beside this file:
the palette as everybody sees it and as a protanope, a deuteranope and a tritanope do.
"""

from pathlib import Path

import numpy as np

# Machado, Oliveira & Fernandes, A physiologically-based model for simulation of color vision
# deficiency (IEEE Transactions on Visualization and Computer Graphics 15, 2009): the matrices of
# severity 1.0, for linear RGB.
DICHROMACY = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def rgb(colours):
    """``#RRGGBB`` as values from 0 to 1, ``(num_colours, 3)``."""
    return np.array([[int(one[i : i + 2], 16) / 255 for i in (1, 3, 5)] for one in colours])


def seen(values, who):
    """sRGB values ``(num_colours, 3)`` as `who` sees them, a key of DICHROMACY."""
    linear = _linear(values) @ np.array(DICHROMACY[who]).T
    linear = np.clip(linear, 0, 1)
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def _linear(values):
    values = np.asarray(values, float)
    return np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)


def lab(values):
    """CIE L*a*b* under D65, ``(num_colours, 3)``, of sRGB values."""
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = _linear(values) @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def difference(first, second):
    """CIEDE2000 of L*a*b* colours, elementwise.

    Sharma, Wu & Dalal, Color Research & Application 30 (2005), equations 2 to 22.
    """
    l1, a1, b1 = np.moveaxis(np.asarray(first, float), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(second, float), -1, 0)
    mean_c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    dl, dc = l2 - l1, c2 - c1
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = np.where(grey, h1 + h2, (h1 + turn / 2) % 360)
    t = 1 - 0.17 * np.cos(np.radians(mean_h - 30)) + 0.24 * np.cos(np.radians(2 * mean_h))
    t = t + 0.32 * np.cos(np.radians(3 * mean_h + 6)) - 0.20 * np.cos(np.radians(4 * mean_h - 63))
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    r_c = 2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    r_t = -np.sin(np.radians(60 * np.exp(-(((mean_h - 275) / 25) ** 2)))) * r_c
    dl, dc, dh = dl / s_l, dc / s_c, dh / s_h
    return np.sqrt(dl**2 + dc**2 + dh**2 + r_t * dc * dh)


def nearest(colours, who=None):
    """The two of some ``#RRGGBB`` that are least apart for `who`, and by how much."""
    values = rgb(colours) if who is None else seen(rgb(colours), who)
    points = lab(values)
    apart = difference(points[:, None], points[None])
    apart[np.diag_indices(len(colours))] = np.inf
    one, other = np.unravel_index(apart.argmin(), apart.shape)
    return colours[one], colours[other], float(apart[one, other])


def main():
    """Draws the palette as it is seen."""
    from bnnlib.analysis import style

    style.set_style()
    names, colours = list(style.PALETTE), list(style.PALETTE.values())
    figure, axes = style.subplots(1, 4, figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, who in zip(axes, (None, *DICHROMACY), strict=True):
        values = rgb(colours) if who is None else seen(rgb(colours), who)
        for place, (name, colour) in enumerate(zip(names, values, strict=True)):
            axis.plot([0, 1, 2], [place, place + 0.25, place], color=colour, linewidth=2.5)
            axis.plot([1], [place + 0.25], color=colour, marker=style.MARKERS[name], markersize=9)
        axis.set_title(who or "as it is", fontsize=12)
        axis.set_xticks([])
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.savefig(Path(__file__).with_name("palette_seen.png"), dpi=80)


if __name__ == "__main__":
    main()
