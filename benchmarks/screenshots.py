"""The pictures of `nexus report` and `nexus dashboard` in the documentation, light and dark.

    pip install -e ".[atari,browser,dashboard]" pillow      and Chromium with chromedriver
    python -m benchmarks.screenshots
    python -m benchmarks.screenshots --runs FOLDER          keep the runs there, and reuse those that are there
    python -m benchmarks.screenshots --atari RUN            show this run of an Atari game

It trains three runs, CartPole, CartPole with a fault in its replay, and a minute of Pong, writes their reports, opens
these and the dashboard in a browser, and writes `docs/images/report/*.png`, `docs/images/dashboard/*.png` and a record.
Of the broken run the first lines are shown, of CartPole the curves, and of the game the film of an episode.
"""

import argparse
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.faults import FAULTS
from benchmarks.record import RESULTS, record

IMAGES = RESULTS.parent / "images"
WIDTH, HEIGHT = 1100, 800  # of the window, in pixels
COLORS = 256  # of a picture: pages are flat, and a palette makes them a third as large
MOST_BYTES = 200_000
SECONDS = 60.0  # to wait for a page
SCHEMES = ("light", "dark")
FAULT = "terminal_not_stored"  # values beyond the end of an episode are added to its last reward
SEED = 1
RUNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "cartpole": ("CartPole-v1", {"total_steps": 15_000, "target_return": None, "eval_episodes": 20}),
    "broken": ("CartPole-v1", {"total_steps": 15_000, "target_return": None, "eval_episodes": 20}),
    "atari": (
        "ALE/Pong-v5",
        {"preset": "fast", "total_steps": 5_000, "learning_starts": 1_000, "eval_every": None, "eval_episodes": 0}
        | {"log_every": "250 steps"},
    ),
}
TOPS: Mapping[str, str | None] = {"cartpole": "figure", "broken": None, "atari": "#film"}
"""What each picture of a report begins with: the first curve, the score and the findings, the film."""


@dataclass(frozen=True)
class Page:
    """A page to open.

    Args:
        name: of its picture, below `docs/images`.
        url: its address.
        ready: JavaScript that returns whether everything is drawn.
        top: a selector of the element to scroll to; None for the top of the page.
    """

    name: str
    url: str
    ready: str
    top: str | None = None


def main() -> None:
    """Train what is missing, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="a folder for the runs; none for one that is removed")
    parser.add_argument("--atari", type=Path, metavar="RUN", help="a run of an Atari game; none trains one")
    words = parser.parse_args()
    atari = None if words.atari is None else words.atari.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) if words.runs is None else words.runs.resolve()
        home.mkdir(parents=True, exist_ok=True)
        with chdir(home):  # the pages show these paths
            train(atari)
            with served(Path("runs")) as address, browser() as chromium:
                rows = [taken(chromium, page, scheme) for page in pages(address) for scheme in SCHEMES]
                name = chromium.capabilities["browserName"]
                others = {name: chromium.capabilities["browserVersion"], "selenium": version("selenium")}
    record("screenshots", rows, others=others, window=[WIDTH, HEIGHT], fault=FAULT, seed=SEED, runs=RUNS)


def train(atari: Path | None) -> None:
    """Train the runs that are missing, in `runs` of this folder."""
    import nexus

    for name, (env, settings) in RUNS.items():
        run = Path("runs", name)
        if run.exists():
            continue
        if name == "atari" and atari is not None:
            shutil.copytree(atari, run)
            continue
        started = time.perf_counter()
        draft = run.with_name(f".{name}")
        shutil.rmtree(draft, ignore_errors=True)  # of a killed call
        with FAULTS[FAULT].patched() if name == "broken" else nullcontext():
            nexus.train(env, run_dir=draft, seed=SEED, verbose=False, **settings)
        draft.rename(run)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


def pages(address: str) -> list[Page]:
    """Write the reports, and return all pages."""
    import nexus

    found = [Page("dashboard/list", address, "return document.querySelectorAll('#runs a').length >= 3")]
    drawn = "return document.querySelectorAll('.plot canvas').length > 2"
    for name in RUNS:
        path = nexus.report(Path("runs", name), f"{name}.html", force=True)
        found.append(Page(f"report/{name}", path.resolve().as_uri(), drawn, TOPS[name]))
    return found


def taken(chromium: Any, page: Page, scheme: str) -> dict[str, Any]:
    """Take the picture of a page, and return what the record says of it."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    chromium.get(page.url)
    waited_for(lambda: chromium.execute_script(page.ready))
    if page.top is not None:
        chromium.execute_script(f"document.querySelector('{page.top}').scrollIntoView()")
    time.sleep(0.5)  # what follows the scrolling is drawn
    path = IMAGES / f"{page.name}-{scheme}.png"
    height = chromium.execute_script("return Math.ceil(document.body.getBoundingClientRect().bottom)")
    size = write_picture(chromium.get_screenshot_as_png(), path, min(HEIGHT, height))
    print(f"{path}: {size / 1e3:.0f} kB", flush=True)
    return {"picture": path.relative_to(IMAGES).as_posix(), "bytes": size}


def write_picture(png: bytes, path: Path, height: int) -> int:
    """Write the upper part of a picture with few colours; return its size in bytes.

    Raises:
        ValueError: it is too large for the repository.
    """
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.crop((0, 0, picture.width, height))
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes: needs at most {MOST_BYTES}")
    return size


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve the dashboard of a folder; yield its address."""
    import uvicorn

    from nexus.dashboard.app import app_for
    from nexus.dashboard.serving import address_of, bound

    listener = bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app_for(root), log_level="critical", lifespan="off", ws="none"))
    thread = Thread(target=lambda: server.run(sockets=[listener]))
    thread.start()
    try:
        yield address_of(listener, "127.0.0.1")
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a headless Chromium with a window of fixed size.

    Raises:
        OSError: Chromium or its driver is not installed.
    """
    from selenium import webdriver

    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise OSError("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # which Chromium refuses to root
    for flag in [*flags, "--force-device-scale-factor=1"]:
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as found:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield found


def waited_for(there: Callable[[], Any]) -> None:
    """Wait until a function returns something true.

    Raises:
        TimeoutError: it did not.
    """
    until = time.monotonic() + SECONDS
    while not there():
        if time.monotonic() > until:
            raise TimeoutError(f"the page is not drawn after {SECONDS:g} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
