"""A small folder of pictures with metadata: each picture's colour tells what is said of it."""

import json

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220)}
KINDS = ("plain", "framed")


def rows(count=90):
    """What is said of each picture, by hand."""
    names = sorted(COLOURS)
    found = []
    for index in range(count):
        colour, kind = names[index % 3], KINDS[index // 3 % 2]
        caption = f"A {kind}, {colour} one" if index % 4 else f"{colour}!"
        found.append(
            {"file_name": f"{index:03}.png", "caption": caption, "bright": index / 4, "count": index % 7, "label": kind}
        )
    return found


def pixels(row, size=8):
    """The picture of a row, [size, size, 3]."""
    picture = np.full((size, size, 3), 255, np.uint8)
    inner = slice(1, -1) if row["label"] == "framed" else slice(None)
    colour = next(name for name in COLOURS if name in row["caption"])
    picture[inner, inner] = COLOURS[colour]
    picture[0, 0] = int(4 * row["bright"]) % 256
    return picture


def write_rows(folder, its, size=8):
    """Writes the pictures and the metadata.jsonl of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in its:
        Image.fromarray(pixels(row, size)).save(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in its))
    return folder
