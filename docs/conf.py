"""The documentation site's build: ``make docs`` writes it to build/docs, without network, warnings as errors."""

import configparser
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the extension beside this file, and the library of this checkout
os.environ.setdefault("JAX_PLATFORMS", "cpu")

package = configparser.ConfigParser()
package.read(HERE.parent / "setup.cfg")

project = "cfgjax"
author = "The cfgjax authors"
copyright = author
release = package["metadata"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx.ext.viewcode",
    "docstrings",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

nitpicky = True
nitpick_ignore_regex = [  # names of other libraries, and type variables
    ("py:.*", r"(collections|diffrax|jax|jaxlib|jnp|linen|np|numpy|optax|pathlib|tensorflow_datasets)\..*"),
    ("py:.*", "Array|Path|Mesh|AbstractMesh|Decay|AnyField|AnySolver|Args|Built|Piece|Value"),
    ("py:.*", r"cfgjax\..*\._\w+"),  # private functions that a contract holds
]

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
add_module_names = False
toc_object_entries_show_parents = "hide"
highlight_language = "text"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["explorer.html"]
html_title = f"cfgjax {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
