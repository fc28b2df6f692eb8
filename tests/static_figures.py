"""What a static figure holds, read by other means than matplotlib: XML, pixels, the boxes of a PDF."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from tv_lens.viz import Figure


def texts(path: Path) -> list[str]:
    """The texts of an SVG file."""
    root = ElementTree.parse(path).getroot()
    return ["".join(one.itertext()).strip() for one in root.iter() if one.tag.endswith("}text")]


def saved_texts(figure: Figure, folder: Path, **options) -> list[str]:
    return texts(figure.save(folder / "figure.svg", **options))


def pixels(path: Path) -> np.ndarray:
    """The colours of a PNG, row by row."""
    return np.asarray(Image.open(path).convert("RGB"))


def count(image: np.ndarray, colour: str, within: int = 6) -> int:
    """How many pixels have nearly this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(image.astype(int) - wanted).max(-1) <= within).sum())


def pdf_inches(path: Path) -> tuple[float, float]:
    """The width and height of the page of a PDF."""
    box = re.search(rb"/MediaBox \[ ?([\d. ]+)\]", path.read_bytes())[1].split()
    return float(box[2]) / 72, float(box[3]) / 72
