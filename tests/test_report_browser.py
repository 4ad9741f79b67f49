"""`nexus report` in Chromium: every chart is drawn, nothing goes wrong, and mouse and keyboard work."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexus
from nexus.training.files import write_json
from tests.compared_runs import evaluated_run
from tests.test_film import ENV, changed
from tests.training import short_run

webdriver: Any = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[browser]'")
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs Chromium and chromedriver"),
    pytest.mark.filterwarnings("default::ResourceWarning"),  # selenium's own sockets
]

LIGHT, DARK = "rgb(255, 255, 255)", "rgb(22, 24, 28)"
STEPS = 400
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as found:
        yield found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs with all charts, one of them of a hostile name."""
    return [
        write_run(tmp_path_factory.mktemp("runs") / name, seed) for seed, name in enumerate(("a", "<b>alert(1)<"), 1)
    ]


def write_run(folder: Path, seed: int) -> Path:
    """Write a run whose return at each step is the step, and whose loss is 10 at its first step and 10,000 after it."""
    folder.mkdir()
    settings = {"seed": seed, "total_steps": STEPS, "learning_starts": 10, "eval_episodes": 9, "epsilon_steps": 100}
    progress = {"steps": STEPS, "episodes": STEPS // 2, "updates": 90}
    about = {"env": "CartPole-v1", "env_is_id": True, "algorithm": "dqn", "preset": "plain", "config": settings}
    write_json(folder / "run.json", {"format": 4, **about, "status": "running", "progress": progress, "seconds": 9.0})
    ends = range(2, STEPS + 1, 2)
    episodes = "".join(f"{step},{number},{step},2,{step / 100}\n" for number, step in enumerate(ends, 1))
    (folder / "episodes.csv").write_text(f"step,episode,return,length,seconds\n{episodes}")
    names = [
        "train/q_max",
        "train/q_mean",
        "doctor/predicted_start",
        "doctor/realised_start",
        "mine/<i>odd",
        "time/fps",
    ]
    names += ["rollout/exploration_rate", "train/learning_rate"]
    lines = []
    for step in range(10, STEPS + 1, 10):
        values = dict(zip(names, np.random.default_rng([seed, step]).random(len(names)).tolist(), strict=True))
        lines.append({"step": step, "train/loss": 10 if step == 10 else 10_000, **values})
        if step % 100 == 0:
            lines.append({"step": step, "eval/mean_reward": step / 2, "eval/std_reward": 30.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Write a report and open it; at the end nothing must have been complained about."""

    def open_page(*of: Path, width: int = 1200, scheme: str = "light") -> Any:
        path = nexus.report(list(of), tmp_path / "page.html")
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(path.as_uri())
        return browser

    browser.get_log("browser")
    yield open_page
    assert browser.get_log("browser") == []


def plots(browser: Any) -> list[Any]:
    found: list[Any] = browser.find_elements("css selector", ".plot")
    return found


def plot_of(browser: Any, title: str) -> Any:
    return next(each for each in plots(browser) if each.get_attribute("aria-label").startswith(title))


# Pixels of a canvas that are not transparent.
INK = """
const canvas = arguments[0].querySelector("canvas");
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
return pixels.filter((value, place) => place % 4 === 3 && value > 0).length;
"""
WIDTH = "return [document.documentElement.scrollWidth, window.innerWidth]"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("count", [1, 2])
def test_every_chart_is_drawn_and_readable(count: int, width: int, scheme: str, opened: Open, runs: list[Path]) -> None:
    browser = opened(*runs[:count], width=width, scheme=scheme)
    browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    browser.execute_async_script("setTimeout(arguments[0], 100)")  # `toggle` events come later
    drawn = plots(browser)
    titles = [each.get_attribute("aria-label").partition(" over s")[0] for each in drawn]
    of_groups = [] if count == 1 else ["Evaluations of groups", "Performance profile"]
    main = ["Return", "Loss", "Q-values", "Value of first states", "Exploration", "Learning rate", "Steps per second"]
    assert titles == [*of_groups, *main, "mine/<i>odd"]
    for title, each in zip(titles, drawn, strict=True):
        canvas = each.find_element("css selector", "canvas")
        assert canvas.size["width"] > 0.7 * min(width, each.size["width"]), title
        assert canvas.size["height"] >= 200, title
        assert browser.execute_script(INK, each) > 1_000, title
        assert canvas.get_attribute("aria-label") == each.get_attribute("aria-label"), title
    page_width, window = browser.execute_script(WIDTH)
    assert page_width <= window == width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": LIGHT, "dark": DARK}[scheme]
    small = browser.execute_script(
        "return [...document.querySelectorAll('p, td, th, dd, summary, figcaption')]"
        ".filter((each) => parseFloat(getComputedStyle(each).fontSize) < 12).length"
    )
    assert small == 0


def legend(plot: Any) -> dict[str, str]:
    """What the legend says, by the names of the lines that it shows."""
    rows = [row for row in plot.find_elements("css selector", ".u-series") if row.is_displayed()]
    return {
        row.find_element("css selector", ".u-label").text: row.find_element("css selector", ".u-value").text
        for row in rows
    }


def test_hovering_shows_the_numbers_and_dragging_zooms(opened: Open, runs: list[Path]) -> None:
    browser = opened(runs[0])
    loss = plot_of(browser, "Loss")
    area = loss.find_element("css selector", ".u-over")
    button = loss.find_element("css selector", "button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", area)
    half = area.size["width"] // 2
    chain = webdriver.ActionChains(browser)
    chain.move_to_element_with_offset(area, -half + round(2 * half * 200 / STEPS), 0).perform()
    assert legend(loss) == {"step": "200", "loss": "10,000"}
    assert legend(plot_of(browser, "Return"))["step"] == "200"  # the cursors of all charts move together
    assert not button.is_displayed()
    chain = webdriver.ActionChains(browser)
    chain.move_to_element_with_offset(area, 0, 0).click_and_hold().move_by_offset(half - 2, 0).release().perform()
    assert button.is_displayed()
    webdriver.ActionChains(browser).move_to_element_with_offset(area, -half + 1, 0).perform()
    assert legend(loss)["step"] in ("190", "200", "210")  # now at the left end
    button.click()
    assert not button.is_displayed()
    webdriver.ActionChains(browser).move_to_element_with_offset(area, -half + round(2 * half * 10 / STEPS), 0).perform()
    assert legend(loss) == {"step": "10", "loss": "10"}


def test_the_keyboard_moves_zooms_and_hides(opened: Open, runs: list[Path]) -> None:
    browser = opened(runs[0])
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    loss = plot_of(browser, "Loss")
    loss.send_keys(keys.ARROW_RIGHT)
    first = int(legend(loss)["step"])
    loss.send_keys(keys.ARROW_RIGHT)
    assert int(legend(loss)["step"]) == first + 10
    button = loss.find_element("css selector", "button")
    loss.send_keys("+")
    assert button.is_displayed()
    loss.send_keys("0")
    assert not button.is_displayed()
    values = plot_of(browser, "Q-values")
    row = values.find_elements("css selector", ".u-series")[1]
    row.find_element("css selector", "th").send_keys(keys.ENTER)
    assert "u-off" in row.get_attribute("class")
    returns = plot_of(browser, "Return")
    assert list(legend(returns)) == ["step", "episodes", "mean of 20 episodes", "evaluations"]


def test_the_axis_is_logarithmic_where_that_helps_and_can_be_switched(opened: Open, runs: list[Path]) -> None:
    browser = opened(runs[0])
    switch = plot_of(browser, "Loss").find_element("css selector", "input")
    before = browser.execute_script(INK, plot_of(browser, "Loss"))
    assert not switch.is_selected()  # 10,000 is exactly a thousand times 10
    switch.click()
    switch = plot_of(browser, "Loss").find_element("css selector", "input")
    assert switch.is_selected()
    assert browser.execute_script(INK, plot_of(browser, "Loss")) != before


def test_a_link_opens_the_section_of_its_run(opened: Open, runs: list[Path]) -> None:
    browser = opened(*runs)
    section = browser.find_element("id", "run-1")
    assert section.get_attribute("open") is None
    browser.find_element("css selector", "a[href='#run-1']").click()
    assert section.get_attribute("open") is not None
    assert "<b>alert(1)<" in section.text
    assert "nexus train CartPole-v1" in section.text


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a script of three steps: rewards 0.5, -2 and 3, frames of shades 0, 10, 20 and 30."""
    made = short_run(ENV, tmp_path_factory.mktemp("film"), total_steps=200, gamma=0.5, target_return=None)
    assert made.run_dir is not None
    return made.run_dir


SHADE = """
const canvas = document.createElement("canvas");
const image = document.querySelector("#film img");
const context = canvas.getContext("2d");
context.drawImage(image, 0, 0);
return [image.naturalWidth, image.naturalHeight, ...context.getImageData(1, 1, 1, 1).data];
"""


def film_now(browser: Any) -> str:
    return str(browser.find_element("css selector", "#film .now").text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_the_film_is_stepped_through_with_the_keyboard(width: int, scheme: str, opened: Open, scripted: Path) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    browser = opened(scripted, width=width, scheme=scheme)
    slider = browser.find_element("css selector", "#film input")
    canvas = browser.find_element("css selector", "#film canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    data = json.loads(browser.execute_script("return document.getElementById('report-data').textContent"))["film"]
    for place, reward in enumerate(["0.5", "-2", "3"]):
        greedy = data["scenes"][place]["greedy"]
        name = f"{greedy} {['<b>left</b>', 'right'][greedy]}"
        assert film_now(browser).startswith(f"step {place}: action {name}, reward {reward}, TD error ")
        assert slider.get_attribute("aria-valuetext") == film_now(browser)
        assert browser.execute_script(SHADE) == [3, 2, *[10 * place] * 3, 255]
        (row,) = browser.find_elements("css selector", "#film tr.greedy")
        assert row.text.startswith(name)
        assert row.text.endswith("greedy")
        bar = row.find_element("css selector", ".bar")
        others = browser.find_elements("css selector", "#film tr:not(.greedy) .bar")
        assert all(bar.size["width"] >= other.size["width"] for other in others)
        values = [each.text for each in browser.find_elements("css selector", "#film .u-value")]
        assert values[0] == str(place)  # the cursor of the curve follows
        assert float(values[2]) == [0.25, -0.5, 3][place]
        slider.send_keys(keys.ARROW_RIGHT)
    assert film_now(browser) == "step 3: terminated, so nothing follows"
    assert browser.execute_script(SHADE)[2] == 30
    slider.send_keys(keys.HOME)
    assert film_now(browser).startswith("step 0: ")
    assert browser.execute_script(INK, canvas.find_element("xpath", "..")) > 500
    page_width, window = browser.execute_script(WIDTH)
    assert page_width <= window == width


def test_the_film_plays_and_pauses(opened: Open, scripted: Path) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    browser = opened(scripted)
    button, slider = (browser.find_element("css selector", f"#film {tag}") for tag in ("button", "input"))
    assert button.text == "play"
    button.send_keys(keys.ENTER)
    assert button.text == "pause"
    waiting = "const done = arguments[0], button = document.querySelector('#film button');"
    waiting += (
        "const look = setInterval(() => { if (button.textContent === 'play') { clearInterval(look); done() } }, 20)"
    )
    browser.execute_async_script(waiting)
    assert film_now(browser).startswith("step 3: ")
    slider.send_keys(keys.SPACE)
    slider.send_keys(keys.SPACE)
    assert button.text == "play"
    assert not film_now(browser).startswith("step 3: ")


def test_a_film_without_frames_and_with_illegal_actions(opened: Open, scripted: Path, tmp_path: Path) -> None:
    run = changed(scripted, tmp_path / "masked", renders="none", masked=True, named=False)
    browser = opened(run, width=400)
    assert browser.find_element("css selector", "#film .screen").get_attribute("hidden") is not None
    illegal = browser.find_element("css selector", "#film tr.illegal")
    assert illegal.text.split() == ["0", "–", "not", "allowed"]
    assert not illegal.find_elements("css selector", ".bar")
    said = browser.find_element("id", "film").text
    assert "There are no frames: the environment renders no images, and its states are no images." in said


@pytest.mark.parametrize("width", [1200, 400])
def test_a_row_of_the_replay_is_taken_apart_where_its_link_leads(width: int, opened: Open, scripted: Path) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    browser = opened(scripted, width=width, scheme="dark")
    links = browser.find_elements("css selector", "#replay-rows a")
    assert [link.text for link in links[:3]] == ["199", "198", "197"]
    assert not any(part.is_displayed() for part in browser.find_elements("css selector", ".apart"))
    for link in (links[1], links[0]):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
        link.send_keys(keys.ENTER)
        (part,) = (part for part in browser.find_elements("css selector", ".apart") if part.is_displayed())
        assert part.get_attribute("id") == f"row-{link.text}"
        assert "TD error" in part.text
    bars = browser.find_elements("css selector", "#replay svg rect")
    assert max(bar.rect["width"] for bar in bars) > 50
    page_width, window = browser.execute_script(WIDTH)
    assert page_width <= window == width


def test_groups_of_runs_have_bands_and_a_profile_over_scores(opened: Open, tmp_path: Path) -> None:
    folders = [
        evaluated_run(
            tmp_path / f"{algorithm}{seed}",
            {100: -500, 300: last + seed},
            algorithm=algorithm,
            seed=seed,
            env="Acrobot-v1",
        )
        for algorithm, last in (("c51", -120), ("dqn", -100))
        for seed in range(5)
    ]
    browser = opened(*folders)
    groups, profile = plot_of(browser, "Evaluations of groups"), plot_of(browser, "Performance profile")
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    groups.send_keys(keys.ARROW_RIGHT, keys.ARROW_RIGHT, keys.ARROW_RIGHT)
    assert legend(groups) == {"step": "300", "algorithm=c51": "-118", "algorithm=dqn": "-98"}
    assert browser.execute_script(INK, groups) > 1_000
    profile.send_keys(keys.ARROW_RIGHT)
    shown = legend(profile)
    assert -120 < float(shown["score"]) < -100
    assert (shown["algorithm=c51"], shown["algorithm=dqn"]) == ("0", "1")  # all scores of dqn are above those of c51
    button = profile.find_element("css selector", "button")
    assert not button.is_displayed()  # it begins at a negative score and is not zoomed
    profile.send_keys("+")
    assert button.is_displayed()
    profile.send_keys("0")
    assert not button.is_displayed()
    assert "algorithm=dqn is better than algorithm=c51 by 20.0" in browser.find_element("id", "comparison").text
