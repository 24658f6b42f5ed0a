"""Found by every cookiecutter that can use this template; its name is what an older one says.

Before 2.1, cookiecutter finds no extension that lies in a template and ends with "Unable to load
extension: No module named 'needs_cookiecutter_2_1_or_newer'", before it asks a question.
"""

from __future__ import annotations

import os
import sys

from jinja2 import Environment
from jinja2.ext import Extension


class Check(Extension):
    """Forgets the catalogue of another version of the template; that it was found is enough."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        # An update generates the old and the new project in one process.
        known = sys.modules.get("catalogue")
        if known and os.path.dirname(str(known.__file__)) not in sys.path:
            del sys.modules["catalogue"]
