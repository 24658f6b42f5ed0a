"""A storage by URL: what goes wrong on the way to it, who may write, and what is said.

A real client over real HTTP to moto's server, with a wire between them that a test can damage.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradlab.base.errors import GradlabError
from gradlab.base.locks import Held
from gradlab.services import session, urls
from gradlab.store import leases, retries_in_tests, transfer
from gradlab.store.datasets import Datasets
from gradlab.store.leases import Keyed, Lease, Lost
from gradlab.store.location import Location
from gradlab.store.objects import ObjectStore
from gradlab.store.refusals import StorageError

from .kit import KIT
from .services.bucket import KEYS, NAME, Bucket, Fault
