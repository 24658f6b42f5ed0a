"""A stand-in of the module by which Kaggle's notebooks read the user's secrets.

Promises: the real names and errors; the secrets come from the file that STAND_IN_USER names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


class BackendError(Exception):
    """The service has no such secret, or none for this notebook."""


class ValidationError(Exception):
    """The question makes no sense."""


class UserSecretsClient:
    """Reads the secrets that the user attached to this notebook."""

    def get_secret(self, label: str) -> str:
        """Give the secret of this label."""
        if not label:
            raise ValidationError("Label must be non-empty.")
        user = json.loads(Path(os.environ["STAND_IN_USER"]).read_text())
        if label not in user["secrets"] or label in user["refused"]:
            raise BackendError(f"No user secrets exist for kernel id 0 and label {label}.")
        return str(user["secrets"][label])
