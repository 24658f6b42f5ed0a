# %% [markdown] about
# # Train, and carry on
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](@COLAB@) [![Run on Gradient](https://assets.paperspace.io/img/gradient-badge.svg)](@GRADIENT@)
#
# This notebook is a door to the workflow in `.gradient/workflows/`: the same jobs, scripts and datasets as on Gradient, on whatever machine it is opened.
#
# Run the cells from the top. Each can be run again at any time; after a session has died, run all of them again: the workflow carries on where it was cut off, and ends with the same bytes as one that never stopped.

# %% [markdown] about-where
# ## 1. Where things are
#
# Says where the code comes from and where runs, data and models are kept. In Colab it mounts your Google Drive, if you wish; elsewhere the storage is the service's own. Leave the branch empty for the default one.

# %% where
#@title 1. Where things are { display-mode: "form" }
repository = "@REPOSITORY@"  #@param {type:"string"}
branch = ""  #@param {type:"string"}
keep_on_drive = True  #@param {type:"boolean"}
drive_folder = "gradlab"  #@param {type:"string"}

import os
import re
from pathlib import Path

DRIVE = Path("/content/drive")
# A repository's page as a browser shows it: .../tree/main/src, .../blob/dev/train.ipynb
PAGE = re.compile(r"(https?://[^/]+/[^/]+/.+?)/(?:-/)?(?:tree|blob|src|commits?|releases/tag)/(.+)")
OTHER_PAGE = re.compile(r"(https?://github\.com/[^/]+/[^/]+)/.+")
if "started_in" not in globals():
    try:
        started_in = Path.cwd()
    except FileNotFoundError:  # the folder in which this kernel began has been deleted
        started_in = Path.home()


class Stop(Exception):
    """Ends a cell with what to do about it, instead of a traceback."""

    def _render_traceback_(self):
        return [str(self)]


def mount_drive():
    """Mount Google Drive unless it is mounted, and again where its process has died."""
    from google.colab import drive

    try:
        # Looked for first: the mount asks for consent even where Drive is mounted.
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
        if [str(DRIVE), "fuse.drive"] not in mounts:
            drive.mount(str(DRIVE))
        try:
            os.listdir(DRIVE / "MyDrive")
        except OSError:
            drive.mount(str(DRIVE), force_remount=True)
            os.listdir(DRIVE / "MyDrive")
    except Exception as error:  # what can be raised here has no common base
        raise Stop(
            f"Google Drive was not mounted: {str(error) or type(error).__name__}\n"
            "Either run this cell again and allow the access, or clear keep_on_drive and run it "
            "again: then all that is made lies on this machine only, and goes with the session."
        ) from None


def colab_storage():
    """Give the folder that keeps this project's things in Colab."""
    if not keep_on_drive:
        return Path("/content/gradlab", name)
    inside = drive_folder.strip().removeprefix(f"{DRIVE}/MyDrive").strip("/")
    if not inside or ".." in inside.split("/"):
        raise Stop(f"drive_folder {drive_folder!r} is no folder in your Drive: try  gradlab")
    mount_drive()
    return DRIVE / "MyDrive" / inside / name


repository, branch = re.split("[?#]", repository.strip())[0].rstrip("/"), branch.strip()
branches = [branch] if branch else []
if page := PAGE.fullmatch(repository) or OTHER_PAGE.fullmatch(repository):
    repository = page[1]
    if page.re is PAGE and not branch:
        # A branch's name may hold slashes, and a file's path may follow it.
        parts = page[2].split("/")
        branches = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    print(f"Taken as the repository {repository}" + (f" at {branches[-1]}" if branches else ""))
name = re.split("[/:]", repository.removesuffix(".git"))[-1]
if not re.fullmatch(r"[\w-][\w.-]*", name) or repository.startswith("-"):
    raise Stop(f"repository {repository!r} is no address like https://github.com/owner/project")
if re.match(r"https?://[^/]*@", repository):
    raise Stop(
        "The repository's address holds a password or token, which would end up in files and "
        "outputs. Take it out, and put it into the service's secrets under the name GITHUB_TOKEN."
    )
if branch.startswith("-"):
    raise Stop(f"{branch!r} can't be a branch")

on_kaggle = "KAGGLE_KERNEL_RUN_TYPE" in os.environ
on_colab = not on_kaggle and bool({"COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION"} & {*os.environ})
on_gradient = bool({"PAPERSPACE_NOTEBOOK_REPO_ID", "PAPERSPACE_NOTEBOOK_ID"} & {*os.environ})
if on_colab:
    os.environ["GRADLAB_STORAGE"] = str(colab_storage())
    print("Kept in", os.environ["GRADLAB_STORAGE"])
    if keep_on_drive:
        print("That is your Google Drive: kept until you delete it.")
    else:
        print("! That is this machine's disk: gone when the session ends.")
    print("A free session ends after at most 12 hours, and after about 90 minutes without use.")
elif on_kaggle:
    print("! Kept in /kaggle/working, which survives the session only by Save Version, or with")
    print("  Session options > Persistence set to files. A session ends after 12 hours at most.")
elif on_gradient:
    print(f"Kept in /storage/{name}, which outlives this machine: until you delete it.")
    print("A free machine ends after at most 6 hours.")
else:
    print("Kept in the folder storage of the project, on this machine.")

# %% [markdown] about-code
# ## 2. Get the code
#
# Clones the repository, or brings an earlier clone up to date; your own edits and commits stay. A notebook that lies in a checkout uses that one as it is. For a private repository, put a token that may read it into the service's secrets as `GITHUB_TOKEN`.

# %% code
#@title 2. Get the code { display-mode: "form" }
if "repository" not in globals():
    raise RuntimeError("Run the cell above first.")

import base64
import shutil
import subprocess
import sys
from urllib.parse import urlsplit

# What git says where the machine or the way to the server has no network.
NO_NETWORK = (
    "Could not resolve host", "Network is unreachable", "Connection timed out", "timed out after",
    "Connection refused", "Failed to connect", "Couldn't connect", "No route to host",
)


def secret(key):
    """Give a secret of the service's or of the environment; empty where there is none."""
    try:
        if on_colab:
            from google.colab import userdata

            return (userdata.get(key) or "").strip()
        if on_kaggle:
            from kaggle_secrets import UserSecretsClient

            return (UserSecretsClient().get_secret(key) or "").strip()
    except Exception as error:  # not there, not allowed, or nobody answers: no common base
        print(f"The secret {key} could not be read: {type(error).__name__}")
    return os.environ.get(key, "").strip()


def git(*arguments, folder=None, check=True, token=""):
    """Run git without any question; a token reaches it through its environment only."""
    # A GIT_DIR of the surroundings would have it work on another repository.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    if token:
        site = urlsplit(repository)
        code = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        env |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{site.scheme}://{site.netloc}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {code}",
        }
    done = subprocess.run(
        ["git", *arguments], cwd=folder or (started_in if started_in.is_dir() else "/"), env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )
    if check and done.returncode:
        raise Stop(f"git {arguments[0]} failed:\n{done.stdout.strip()}")
    return done


def access():
    """Give the token that reading the repository takes, empty where it is public."""
    done = git("ls-remote", repository, "HEAD", check=False)
    if not done.returncode:
        return ""
    if any(words in done.stdout for words in NO_NETWORK):
        where = "set Settings > Internet to On and " if on_kaggle else ""
        raise Stop(
            f"{urlsplit(repository).netloc or repository} can't be reached:\n"
            f"{done.stdout.strip()}\n"
            "Look for a mistake in the address. If it is right, this machine has no internet, or "
            f"that server is down: {where}run this cell again."
        )
    token = secret("GITHUB_TOKEN")
    done = git("ls-remote", repository, "HEAD", check=False, token=token)
    if done.returncode:
        raise Stop(
            f"{repository} can't be read:\n{done.stdout.strip()}\n"
            "Look for a mistake in the address. If it is right and the repository is private, make "
            "a token that may read its contents (github.com/settings/personal-access-tokens), put "
            "it into this service's secrets under the name GITHUB_TOKEN, allow this notebook to "
            "use it, and run this cell again."
        )
    return token


def choose(folder, token):
    """Check out the branch, tag or commit that was asked for; give git's end."""
    for wanted in branches:
        done = git("checkout", wanted, "--", folder=folder, check=False)
        if done.returncode and re.fullmatch("[0-9a-f]{7,40}", wanted):
            git("fetch", "origin", wanted, folder=folder, check=False, token=token)
            done = git("checkout", wanted, "--", folder=folder, check=False)
        if not done.returncode:
            break
    return done


def clone(token):
    """Clone into a folder of its own first: half a clone must never pass for a whole one."""
    part = code.with_name(f"{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    git("clone", repository, str(part), token=token)
    if branches and (done := choose(part, token)).returncode:
        known = git("branch", "--remotes", "--format=%(refname:lstrip=3)", folder=part).stdout
        raise Stop(
            f"{repository} has no branch, tag or commit {branches[-1]!r}.\n"
            f"Its branches: {', '.join(known.replace('HEAD', '').split())}"
        )
    modules = ["submodule", "update", "--init", "--recursive"]
    if (done := git(*modules, folder=part, check=False, token=token)).returncode:
        print(f"! A submodule could not be had, and is empty:\n{done.stdout.strip()}")
    part.rename(code)


def update(token):
    """Take up what is new; git itself refuses whatever would overwrite an edit."""
    origin = git("remote", "get-url", "origin", folder=code, check=False).stdout.strip()
    if origin != repository:
        raise Stop(f"{code} is a clone of {origin}, not of {repository}: rename or delete it.")
    git("fetch", "--prune", "--tags", "origin", folder=code, token=token)
    done = choose(code, token) if branches else None
    on_branch = not git("symbolic-ref", "-q", "HEAD", folder=code, check=False).returncode
    if on_branch and not (done and done.returncode):
        done = git("merge", "--ff-only", "@{upstream}", folder=code, check=False)
    if done and done.returncode:
        print(f"Your edits are kept, and the code is not updated:\n{done.stdout.strip()}")


def kit(folder):
    """Give the wheel with the kit of a project; None for a folder that is no project."""
    is_project = (folder / "pyproject.toml").is_file()
    return max((folder / "vendor").glob("gradlab-*.whl"), default=None) if is_project else None


around = [folder for folder in (started_in, *started_in.parents) if kit(folder)]
tops = {on_colab: Path("/content"), on_kaggle: Path("/kaggle/tmp"), on_gradient: started_in}
code = around[0] if around else tops.get(True, started_in) / name
if around:
    print("The code is the checkout in which this notebook lies.")
elif (code / ".git").exists():
    update(access())
elif code.exists():
    raise Stop(f"{code} is there already and is no clone of {repository}: rename or delete it.")
else:
    clone(access())
if not kit(code):
    raise Stop(f"{code} holds no project made from this notebook's template: no vendor/gradlab-*.whl")
os.chdir(code)
at = git("log", "-1", "--format=%h %s", folder=code, check=False).stdout.strip()
edits = git("status", "--short", folder=code, check=False).stdout.rstrip()
print(f"{code} at {at}" + (f"\nwith edits:\n{edits}" if edits else ""))

# %% [markdown] about-install
# ## 3. Install
#
# Installs what the project needs beside what the service brought. That stays as it is: torch, numpy, pillow, jax, tensorflow and Jupyter always, all else where it can; what had to move is named.

# %% install
#@title 3. Install { display-mode: "form" }
if "code" not in globals():
    raise RuntimeError("Run the cells above first, from the top.")

import importlib
import site


def show(*command):
    """Run a command of the kit, which need not be installed, and show what it prints."""
    env = {**os.environ, "PYTHONPATH": str(kit(code)), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=code, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:
        for line in process.stdout:
            print(line, end="")
    if process.returncode:
        raise Stop(f"Not installed: see the lines above. (exit status {process.returncode})")


show(sys.executable, "-m", "gradlab.notebook.install")
# The kit as it is now, not of an earlier run of these cells.
for module in [known for known in sys.modules if known.partition(".")[0] == "gradlab"]:
    del sys.modules[module]
importlib.invalidate_caches()
# Where pip installs for one user only; this folder may be new.
if site.ENABLE_USER_SITE and os.path.isdir(site.getusersitepackages()):
    site.addsitedir(site.getusersitepackages())
sys.path[:] = [str(code / "src"), *(path for path in sys.path if path != str(code / "src"))]
from gradlab.notebook import cells

# %% [markdown] about-check
# ## 4. Check the machine
#
# Shows what this machine is: GPU, memory, storage, the time that is left. Tick the box to be stopped here where there is no GPU.

# %% check
#@title 4. Check the machine { display-mode: "form" }
gpu_required = False  #@param {type:"boolean"}

if "cells" not in globals():
    raise RuntimeError("Run the cells above first, from the top.")
cells.run("doctor", *["--gpu"] * gpu_required)

# %% [markdown] about-run
# ## 5. Run the workflow
#
# Runs the workflow, and carries it on if a session died. Stop it with the stop button: it saves first. To change what it does, edit `.gradient/workflows/`.

# %% run
#@title 5. Run the workflow { display-mode: "form" }
workflow = "train"  #@param {type:"string"}

if "cells" not in globals():
    raise RuntimeError("Run the cells above first, from the top.")
cells.run("run", workflow, secret=secret, remount=mount_drive)

# %% [markdown] about-look
# ## 6. Look
#
# Shows the pictures and figures that the workflow has made, its datasets and its models.

# %% look
#@title 6. Look { display-mode: "form" }
if not {"cells", "workflow"} <= globals().keys():
    raise RuntimeError("Run the cells above first, from the top.")
cells.look(workflow)

# %% [markdown] about-tensorboard
# TensorBoard shows each step of the runs.

# %% tensorboard
#@title 6. TensorBoard { display-mode: "form" }
show_tensorboard = True  #@param {type:"boolean"}

if not {"cells", "workflow"} <= globals().keys():
    raise RuntimeError("Run the cells above first, from the top.")
if show_tensorboard:
    cells.tensorboard(workflow)

# %% [markdown] about-take
# Takes the model with you: as an ONNX file, as a download of this browser, or both.

# %% take
#@title 6. Take the model with you { display-mode: "form" }
as_onnx = False  #@param {type:"boolean"}
download = False  #@param {type:"boolean"}

if not {"cells", "workflow"} <= globals().keys():
    raise RuntimeError("Run the cells above first, from the top.")
cells.take(workflow, as_onnx, download)

# %% [markdown] about-leave
# ## 7. Leave
#
# Verifies what is kept, brings all of it to Google Drive and says what is safe. Run it before you close the session; after it, Drive is no longer mounted here.

# %% leave
#@title 7. Leave { display-mode: "form" }
if "cells" not in globals():
    raise RuntimeError("Run the cells above first, from the top.")
cells.leave()
