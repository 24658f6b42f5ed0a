"""A container image made of this machine's own files: bash, the usual tools, and a Python.

    python -m tests.image NAME    makes it with podman, in some seconds and without a network

Promises: a job finds in it what it finds in the images that people use, and neither this project
nor torch.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("bash", "coreutils", "dash", "findutils", "gawk", "grep", "gzip", "mawk", "procps")
PACKAGES += ("sed", "tar", "util-linux", "git", "mount", "diffutils")
PATH = "/usr/local/bin:/usr/bin:/bin"
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "usr/local/bin/pip": '#!/bin/sh\nexec /usr/local/bin/python -m pip "$@"\n',
}
LEFT_OUT = re.compile(r"/(test|tests|__pycache__|idlelib|tkinter|config-\d.*|site-packages)(/|$)")


def programs() -> list[str]:
    """List the programs of the usual packages."""
    listed = subprocess.run(["dpkg-query", "-L", *PACKAGES], capture_output=True, text=True).stdout
    found = {path for path in listed.splitlines() if re.fullmatch(r"(/usr)?/bin/[\w.-]+", path)}
    return sorted(path for path in found if os.path.isfile(path))


def libraries(paths: list[str]) -> set[str]:
    """List the libraries that programs are linked with."""
    text = subprocess.run(["ldd", *paths], capture_output=True, text=True).stdout
    return set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", text, re.MULTILINE))


def python() -> Iterator[tuple[Path, str]]:
    """Give the files of this Python, with pip, and where they belong."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    yield Path(sys.base_prefix, "bin", version).resolve(), f"usr/local/bin/{version}"
    trees = {Path(sysconfig.get_path("stdlib")): Path("usr/local/lib", version)}
    for name in ("pip", "setuptools", "_distutils_hack", "pkg_resources"):
        package = Path(sysconfig.get_path("purelib"), name)
        trees[package] = Path("usr/local/lib", version, "site-packages", name)
    for top, place in trees.items():
        for path in top.rglob("*"):
            relative = path.relative_to(top)
            if path.is_file() and not LEFT_OUT.search(f"/{relative}"):
                yield path, str(place / relative)


def content() -> dict[str, Path]:
    """Give all files by where they belong."""
    tools, own = programs(), {place: path for path, place in python()}
    linked = [*tools, *(str(path) for path in own.values() if ".so" in path.name)]
    linked.append(str(Path(sys.base_prefix, "bin", "python3").resolve()))
    return own | {
        re.sub(r"^/(bin|sbin|lib|lib64)/", r"usr/\1/", path).lstrip("/"): Path(path)
        for path in {*tools, *libraries(linked)}
    }


def write(stream: io.BufferedWriter) -> None:
    """Write the image's files as a tar archive."""
    with tarfile.open(fileobj=stream, mode="w|", dereference=True) as archive:
        for name in (
            "usr/bin",
            "usr/lib",
            "usr/lib64",
            "usr/sbin",
            "root",
            "tmp",
            "var/tmp",
            "var/lib",
        ):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if "tmp" in name else 0o755
            archive.addfile(folder)
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        links = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
        links |= {f"usr/local/bin/{name}": version for name in ("python", "python3")}
        links |= {"usr/bin/awk": "mawk", "usr/local/bin/pip3": "pip"}
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, text in FILES.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755 if "/bin/" in name else 0o644
            archive.addfile(info, io.BytesIO(text.encode()))
        for place, path in sorted(content().items()):
            archive.add(path, place)


def make(name: str) -> None:
    """Make the image with podman, and NAME-seq, whose own program is seq."""
    change = [f"--change=ENV PATH={PATH}", "--change=CMD bash"]
    command = ["podman", "import", "--quiet", *change, "-", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importer:
        assert isinstance(importer.stdin, io.BufferedWriter)
        write(importer.stdin)
        importer.stdin.close()
    if importer.returncode:
        raise SystemExit(importer.returncode)
    box = f"gradlab-image-{os.getpid()}"
    subprocess.run(["podman", "create", "--quiet", f"--name={box}", name], check=True)
    entry = ['--change=ENTRYPOINT ["seq"]', '--change=CMD ["2"]']
    subprocess.run(["podman", "commit", "--quiet", *entry, box, f"{name}-seq"], check=True)
    subprocess.run(["podman", "rm", box], check=True)


if __name__ == "__main__":
    make(sys.argv[1])
