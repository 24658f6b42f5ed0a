"""The rules by subject, in the order in which the reference lists them."""

# ruff: noqa: I001
from . import file as file
from . import structure as structure
from . import graph as graph
from . import paths as paths
from . import datasets as datasets
from . import scripts as scripts
from . import service as service
from . import origins as origins
from . import secrets as secrets
from . import argo as argo
