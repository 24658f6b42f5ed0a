"""A stand-in of the package that is on Colab's machines: the parts that notebooks use.

Promises: the real functions with their signatures, their errors and their order of steps; what a
browser or Google would answer is read from the file that STAND_IN_USER names. As the real one it
works in the kernel's process only.
"""

from . import drive, errors, files, userdata

__all__ = ["drive", "errors", "files", "userdata"]
