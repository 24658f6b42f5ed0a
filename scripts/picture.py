"""Run a fresh project's notebook in JupyterLab in a headless Chromium, and take its picture.

    python scripts/picture.py [PICTURE]

Promises: what is seen is a real run; it fails where a cell fails. Needs chromium and chromedriver.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cookiecutter.main import cookiecutter
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

TEMPLATE = Path(__file__).resolve().parents[1]
PICTURE = TEMPLATE / "docs" / "notebook.png"
NOTEBOOK = "notebooks/train.ipynb"
RUN, LOOK = "5. Run the workflow", "6. Look"
WIDTH, HEIGHT = 1366, 2400  # cells are 1280 wide; what is out of view can't be taken
SECONDS = 300.0  # the longest that anything may take
COLOURS = 128
URL = re.compile(r"(?P<server>http://127\.0\.0\.1:\d+)/\S*\?token=(?P<token>\w+)")
ERROR = "[data-mime-type='application/vnd.jupyter.stderr']"
SETTINGS = {
    # All cells are in the page, not only those in view.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# Asked of the page at once: an element by itself takes long, and nothing else goes on meanwhile.
FIND = """
const [selector, text] = arguments;
const found = [...document.querySelectorAll(selector)];
return text ? found.filter(element => (element.innerText ?? "").includes(text)) : found;
"""
TEXT = "return arguments[0].innerText.trim()"
# Shows a folder as ~ in an element's text.
SHORTEN = """
const texts = document.createTreeWalker(arguments[0], NodeFilter.SHOW_TEXT);
while (texts.nextNode())
  texts.currentNode.data = texts.currentNode.data.replaceAll(arguments[1], "~");
"""
T = TypeVar("T")


class PictureError(Exception):
    """What kept the picture from being taken."""


def main(arguments: Sequence[str]) -> int:
    """Take the picture; give the exit code."""
    target = Path(arguments[0]) if arguments else PICTURE
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="", ignore_cleanup_errors=True) as folder:
        try:
            with opened(Path(folder)) as notebook:
                picture = stack(moments(notebook))
        except PictureError as error:
            print(error, file=sys.stderr)
            return 1
    picture.save(target, "PNG", optimize=True)
    print(f"{target}: {picture.width}x{picture.height}, {target.stat().st_size:,} bytes")
    return 0


def moments(notebook: Notebook) -> list[Image.Image]:
    """Run all cells; give pictures of the workflow in mid-run, then of what it made.

    Raises PictureError with a cell's own words where it fails.
    """
    notebook.run_all()
    wait_for(lambda: notebook.fails() or 50 <= notebook.percent(RUN) < 100, "a progress bar")
    running = notebook.seen(RUN)
    wait_for(lambda: notebook.fails() or notebook.has_ended(), "the last cell's end")
    if failure := notebook.fails():
        raise PictureError(f"A cell failed:\n{failure}")
    return [*running, *notebook.seen(LOOK)]


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Set pictures below each other."""
    height = sum(picture.height for picture in pictures)
    whole = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole.quantize(COLOURS, dither=Image.Dither.NONE)


@contextmanager
def opened(folder: Path) -> Iterator[Notebook]:
    """Open the notebook of a fresh project, all of which lies in a folder."""
    project = generate(folder)
    with jupyterlab(project, folder / ".jupyter") as address, browser(folder) as driver:
        driver.get(address)
        yield Notebook(driver, folder)


def generate(folder: Path) -> Path:
    """Generate the default project, as a checkout of its own."""
    options = {"no_input": True, "default_config": True, "output_dir": str(folder)}
    project = Path(cookiecutter(str(TEMPLATE), **options))
    who = ["-c", "user.name=You", "-c", "user.email=you@example.com"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "Start"]):
        subprocess.run(["git", *who, *command], cwd=project, check=True)
    return project


@contextmanager
def jupyterlab(project: Path, folder: Path) -> Iterator[str]:
    """Serve a project with JupyterLab, whose own files lie in a folder; give the notebook's URL."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", str(project)]
    env, log = environment(folder), folder / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=env, stdout=file, stderr=file)
    try:
        wait_for(lambda: server.poll() is not None or URL.search(log.read_text()), "JupyterLab")
        if not (url := URL.search(log.read_text())):
            raise PictureError(f"JupyterLab did not start:\n{log.read_text()}")
        yield f"{url['server']}/doc/tree/{NOTEBOOK}?token={url['token']}"
    finally:
        server.terminate()
        server.wait()


def environment(folder: Path) -> dict[str, str]:
    """Give an environment for Jupyter in which nothing is of this user's own settings."""
    for name, values in SETTINGS.items():
        path = folder / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GRADLAB_", "JUPYTER"))}
    env |= {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "IPYTHONDIR": str(folder)}
    # What the notebook installs, the project and its kit, is not to come into this Python.
    installed = folder / "installed"
    seen = sysconfig.get_path("purelib", vars={"base": str(installed)})
    return env | {"PIP_PREFIX": str(installed), "PYTHONPATH": seen}


@contextmanager
def browser(folder: Path) -> Iterator[webdriver.Chrome]:
    """Start a headless Chromium with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location, program = program_of("chromium"), program_of("chromedriver")
    # Without its sandbox, which the user root can't have.
    arguments = ["headless=new", "no-sandbox", "hide-scrollbars", "disable-dev-shm-usage"]
    arguments += [f"user-data-dir={folder / '.chromium'}", f"window-size={WIDTH},{HEIGHT}"]
    for argument in arguments:
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(program))
    try:
        yield driver
    finally:
        driver.quit()


def program_of(name: str) -> str:
    """Find a program of this machine."""
    if found := shutil.which(name):
        return found
    raise PictureError(f"{name} is not installed (apt-get install chromium chromium-driver)")


def wait_for(what: Callable[[], T], name: str) -> T:
    """Give what a function gives, once that is true."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except StaleElementReferenceException:  # JupyterLab has drawn it anew meanwhile
            continue
        time.sleep(0.25)
    raise PictureError(f"{name} did not come within {SECONDS:.0f} seconds")


class Notebook:
    """The notebook as it is seen in the browser."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        wait_for(lambda: self.find(".jp-Notebook .jp-CodeCell"), "the notebook")
        wait_for(lambda: self.find("#jp-main-statusbar", "| Idle"), "the kernel")

    def find(self, selector: str, text: str = "") -> list[WebElement]:
        """Give the elements that a CSS selector chooses and in which a text is seen."""
        return list(self.driver.execute_script(FIND, selector, text))

    def text(self, element: WebElement) -> str:
        """Give the text that is seen of an element."""
        return str(self.driver.execute_script(TEXT, element))

    def click(self, selector: str, text: str = "") -> None:
        """Click on the element that a CSS selector chooses and whose text is this one."""

        def chosen() -> list[WebElement]:
            return [each for each in self.find(selector, text) if self.text(each) == text]

        wait_for(chosen, text or selector)[0].click()

    def run_all(self) -> None:
        """Choose "Run All Cells" in the menu."""
        self.click(".lm-MenuBar-itemLabel", "Run")
        self.click(".lm-Menu-itemLabel", "Run All Cells")

    def cell(self, title: str) -> WebElement:
        """Give the code cell of a title."""
        return self.find(".jp-CodeCell", f"#@title {title} ")[0]

    def output(self, title: str) -> str:
        """Give the text that is seen below a code cell."""
        below = self.cell(title).find_element(By.CSS_SELECTOR, ".jp-Cell-outputWrapper")
        return self.text(below)

    def percent(self, title: str) -> int:
        """Give where the last progress bar below a code cell stands."""
        return int(([*re.findall(r"(\d+)%\|", self.output(title))] or [0])[-1])

    def fails(self) -> str:
        """Give the errors that are seen."""
        return "\n".join(map(self.text, self.find(ERROR)))

    def has_ended(self) -> bool:
        """Tell whether no cell runs or waits to be run."""
        return bool(self.find(".jp-Notebook-ExecutionIndicator[data-status=idle]"))

    def seen(self, title: str) -> list[Image.Image]:
        """Give the pictures of a code cell and, first, of the text above it."""
        cell = self.cell(title)
        above = cell.find_element(By.XPATH, "preceding-sibling::*[1]")
        self.driver.execute_script(SHORTEN, cell, str(self.folder))
        return [Image.open(io.BytesIO(e.screenshot_as_png)) for e in (above, cell)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
