"""Pictures inside a page."""

import base64
import io
from typing import Any

from PIL import Image


def embedded(png: bytes) -> dict[str, Any]:
    """A picture as the page holds it, with its size."""
    with Image.open(io.BytesIO(png)) as picture:
        width, height = picture.size
    return {"uri": f"data:image/png;base64,{base64.b64encode(png).decode()}", "width": width, "height": height}
