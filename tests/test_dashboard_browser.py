"""`nexus dashboard` in Chromium: a page follows its run, and keeps what was zoomed into and hidden."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.test_report_browser import STEPS, write_run
from tests.training import short_run

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra [dashboard]")
pytest.importorskip("starlette", reason="needs the extra [dashboard]")
webdriver: Any = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[browser]'")
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs Chromium and chromedriver"),
    pytest.mark.filterwarnings("default::ResourceWarning"),  # selenium's own sockets
]
SECONDS = 30.0  # for a busy machine; the page asks every two
LOSSES = "return [...document.querySelectorAll('.plot')].find((each) => each.ariaLabel.startsWith('Loss')).ariaLabel"


@pytest.fixture
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as found:
        yield found


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    listener = import_module("nexus.dashboard.serving").bound("127.0.0.1", 0)
    app = import_module("nexus.dashboard.app").app_for(tmp_path)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
    thread = Thread(target=lambda: server.run(sockets=[listener]))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


def waited_for(there: Callable[[], Any]) -> Any:
    """What a function returns, once it is true."""
    until = time.monotonic() + SECONDS
    while not (found := there()) and time.monotonic() < until:
        time.sleep(0.1)
    assert found
    return found


def test_a_page_follows_its_run(browser: Any, address: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "<b>odd", 1)
    browser.get(address)
    waited_for(lambda: browser.find_elements("css selector", "#runs a"))[0].click()
    waited_for(lambda: browser.find_elements("css selector", ".plot canvas"))
    assert f"at step {STEPS}" in browser.execute_script(LOSSES)
    browser.execute_script("window.same = true")
    # Zoom in with the keyboard, and hide a line.
    plot = next(
        p for p in browser.find_elements("css selector", ".plot") if p.get_attribute("aria-label")[:8] == "Q-values"
    )
    plot.send_keys("+")
    button = plot.find_element("css selector", ".tools button")
    assert button.is_displayed()
    name = plot.find_elements("css selector", ".u-legend .u-series th")[2]
    browser.execute_script("arguments[0].click()", name)
    values = {"train/loss": 4.25, "train/q_max": 1.0, "train/q_mean": 0.5, "fresh": 3.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": STEPS + 100, **values}) + "\n")
    waited_for(lambda: "loss 4.25 at step 500" in browser.execute_script(LOSSES))
    assert browser.execute_script("return window.same")  # the page was not loaded again
    assert button.is_displayed()
    assert browser.execute_script("return arguments[0].closest('.u-series').classList.contains('u-off')", name)
    # A chart that was not there yet.
    waited_for(lambda: "fresh" in browser.find_element("css selector", "#curves").get_attribute("textContent"))
    shutil.rmtree(run)
    waited_for(lambda: "folder is gone" in browser.find_element("css selector", ".live").text)
    # The browser itself notes each answer 404.
    assert [entry for entry in browser.get_log("browser") if "404" not in entry["message"]] == []


def test_the_replay_is_read_at_a_click(browser: Any, address: str, tmp_path: Path) -> None:
    short_run("CartPole-v1", tmp_path / "real", total_steps=300, target_return=None)
    browser.get_log("browser")
    browser.get(f"{address}/run/real/run")
    button = browser.find_element("css selector", "#replay .read")
    assert not browser.find_elements("css selector", "#replay-rows")
    for _ in range(2):  # the second time the old rows go
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        waited_for(lambda: button.text == "Read it again" and button.is_enabled())
        assert len(browser.find_elements("css selector", "#replay-rows")) == 1
    link = browser.find_element("css selector", "#replay-rows a")
    assert link.text == "303"
    browser.execute_script("arguments[0].click()", link)
    assert "TD error" in waited_for(lambda: browser.find_element("id", "row-303").text)
    assert "nexus report" in browser.find_element("id", "film").text
    assert browser.get_log("browser") == []
