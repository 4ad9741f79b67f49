"""`nexus dashboard`: the numbers of the files, live, and nothing else of this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from nexus.cli.main import main
from nexus.core.errors import ConfigError
from nexus.core.installation import nexus_command
from nexus.dashboard import kept_logs, listing, opened
from nexus.dashboard.growing import LONGEST_LINE, GrowingLog
from nexus.dashboard.kept_logs import KeptLogs
from nexus.dashboard.thinned import MOST_KEPT, Thinned
from nexus.reporting.page import Extras, content_of, html_of
from nexus.reporting.reading import read_contents
from nexus.training.files import write_json
from tests.training import short_run

pytest.importorskip("starlette", reason="needs the extra [dashboard]")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra [dashboard]")
pytest.importorskip("httpx2", reason="needs httpx2, of the extra [dev]")

# The modules that need the extra can only be imported after the lines above.
TestClient = import_module("starlette.testclient").TestClient
app, serving = (import_module(f"nexus.dashboard.{name}") for name in ("app", "serving"))

ROOT = Path(__file__).resolve().parent.parent
HEADER = "step,episode,return,length,seconds\n"
LINES = (
    '{"step": 100, "train/loss": 0.5, "time/fps": 900.25}\n'
    '{"step": 100, "eval/mean_reward": 50.0, "eval/std_reward": 10.0}\n'
    '{"step": 200, "train/loss": 0.1234567890123456, "time/fps": 50.0}\n'
)
Make = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def make(root: Path) -> Make:
    """Write the folder of a run that has got to step 200 of 300."""

    def run(name: str, *, status: str = "running", lines: str = LINES, more: Mapping[str, Any] | None = None) -> Path:
        folder = root / name
        folder.mkdir(parents=True)
        config = {"eval_episodes": 100, "seed": 1, "total_steps": 300, "learning_starts": 50}
        about = {"format": 4, "env": "CartPole-v1", "env_is_id": True, "algorithm": "dqn", "preset": "plain"}
        about |= {"config": config, "status": status, "progress": {"steps": 0, "episodes": 0, "updates": 0}}
        write_json(folder / "run.json", {**about, "seconds": 3.0, **(more or {})})
        (folder / "metrics.jsonl").write_text(lines)
        (folder / "episodes.csv").write_text(HEADER + "100,1,10,100,10\n200,2,20.5,100,20\n")
        return folder

    return run


@pytest.fixture
def client(root: Path) -> Any:
    return TestClient(app.app_for(root), base_url="http://127.0.0.1:8765")


def listed(client: Any) -> dict[str, dict[str, Any]]:
    listing.FRESH, before = 0.0, listing.FRESH
    try:
        return {line["name"]: line for line in client.get("/api/runs").json()["runs"]}
    finally:
        listing.FRESH = before


def lines_of(client: Any, name: str, title: str) -> dict[str, Any]:
    """The lines of a chart by their labels."""
    charts = client.get(f"/api/run/{name}").json()["data"]["charts"]
    (chart,) = (chart for chart in charts if chart["title"] == title)
    return {line["label"]: line for line in chart["lines"]}


# The numbers.


def test_a_line_of_the_list_has_the_numbers_of_the_files(make: Make, client: Any) -> None:
    run = make("a")
    alarm = {"severity": "warning", "check": "exploration", "text": "ε is still 1"}
    write_json(run / "findings.json", {"findings": [{"severity": "note", "check": "x", "text": "y"}, alarm]})
    line = listed(client)["a"]
    assert (line["env"], line["algorithm"], line["status"]) == ("CartPole-v1", "dqn", "running")
    assert (line["steps"], line["total"], line["rate"]) == (200, 300, 50.0)
    assert line["left"] == 2.0  # 100 steps at 50 per second
    assert line["score"] == {"mean": 50.0}
    assert line["finding"] == "warning: exploration: ε is still 1"
    assert line["silent"] is None
    write_json(run / "evaluation.json", {"mean": 70.0, "low": 65.0, "high": 80.0})
    assert listed(client)["a"]["score"] == {"mean": 70.0, "low": 65.0, "high": 80.0}


def test_the_runs_written_to_last_come_first(make: Make, client: Any) -> None:
    for age, name in ((500, "old"), (0, "new"), (7_200, "oldest")):
        for file in make(name).iterdir():
            os.utime(file, (time.time() - age,) * 2)
    lines = client.get("/api/runs").json()["runs"]
    assert [line["name"] for line in lines] == ["new", "old", "oldest"]
    assert [line["silent"] for line in lines] == [None, 8, 120]


def test_the_page_is_that_of_the_report(make: Make, client: Any) -> None:
    run = make("a")
    answer = client.get("/api/run/a").json()
    content = content_of(
        [read_contents(run, "a")], Extras(film_command=nexus_command("report", run), asks_for_replay=True)
    )
    expected = html_of(content.said, content.data, (), ())
    begin, end = (expected.index(mark) for mark in ("<main>", "</main>"))
    assert expected[begin:end] in answer["html"]
    assert json.dumps(answer["data"]) in json.dumps(json.loads(expected.split('id="report-data">')[1].split("<")[0]))
    assert expected[begin:end] in client.get("/run/a").text
    loss = lines_of(client, "a", "Loss")["loss"]
    assert (loss["x"], loss["y"]) == ([100, 200], [0.5, 0.1234567890123456])
    returns = lines_of(client, "a", "Return")
    assert returns["episodes"]["y"] == [10, 20.5]
    assert returns["mean of 20 episodes"]["y"] == [10, 15.25]
    assert (returns["evaluations"]["y"], returns["evaluations"]["low"]) == ([50], [pytest.approx(48.04)])


def test_it_plays_nothing_and_names_the_command_that_does(make: Make, client: Any) -> None:
    run = make("a&b")
    page = client.get("/run/a&b").text
    section = page[page.index('<section id="film">') :].partition("</section>")[0]
    assert f"<code>{nexus_command('report', run)}</code>".replace("'", "&#39;").replace("&b", "&amp;b") in section
    assert "<img" not in page


def test_the_replay_is_read_on_demand(make: Make, root: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    short_run("CartPole-v1", root / "real", total_steps=300, target_return=None)
    page = client.get("/run/real/run").text
    assert "Read the replay" in page
    assert "Transition " not in page
    answer = client.get("/api/replay/real/run")
    assert answer.headers["content-type"] == "application/json"
    html = answer.json()["html"]
    assert "At step 304 the replay held 304 transitions" in html
    assert 'id="row-303"' in html
    assert "TD error" in html
    make("bare")
    assert client.get("/api/replay/bare").json()["html"] == "<p>No replay was saved: the run has no checkpoint.</p>"
    assert client.get("/api/replay/../../x").status_code == 404
    assert client.get("/api/replay/none").json() == {"gone": True}
    assert client.post("/api/replay/real/run").status_code == 405
    monkeypatch.setattr(opened, "LARGEST_REPLAY", 10)
    assert "a page reads at most" in client.get("/api/replay/real/run").json()["html"]
    (root / "real" / "run" / "run.json").write_text("{")
    assert "<p>" in client.get("/api/replay/real/run").json()["html"]


# What changes.


def test_only_what_has_changed_is_sent(make: Make, client: Any) -> None:
    run = make("a")
    for url in ("/api/run/a", "/api/runs"):
        tag = client.get(url).headers["ETag"]
        known = client.get(url, headers={"If-None-Match": tag})
        assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", tag)
        before = client.get("/api/run/a").json()["live"]["files"]
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 250, "train/loss": 7.0}\n')
        fresh = client.get(url, headers={"If-None-Match": tag})
        assert fresh.status_code == 200
        assert fresh.headers["ETag"] != tag
        after = client.get("/api/run/a").json()["live"]["files"]
        assert {name for name in after if after[name] != before[name]} == {"metrics.jsonl"}
    assert lines_of(client, "a", "Loss")["loss"]["x"] == [100, 200, 250, 250]


def test_only_appended_lines_are_read_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make("a")
    logs, read = KeptLogs(run), list[int]()
    add = logs.add_lines

    def counted(lines: Sequence[bytes]) -> None:
        read.append(len(lines))
        add(lines)

    monkeypatch.setattr(logs, "add_lines", counted)
    logs.read_on(1)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 250, "train/loss": 7.0}\n{"step": 300, "train/l')
    logs.read_on(1)
    logs.read_on(1)
    assert read == [3, 1]
    with (run / "metrics.jsonl").open("a") as file:
        file.write('oss": 8.0}\n')
    logs.read_on(1)
    assert logs.scalars(str)["train/loss"].values.tolist() == [0.5, 0.1234567890123456, 7, 8]


@pytest.mark.parametrize("content", ["", '{"step": 100, "train/loss": 9.0}\n', LINES.replace("0.5", "1.5")])
def test_a_log_that_was_cut_back_is_read_again(content: str, make: Make) -> None:
    run = make("a")
    logs = KeptLogs(run)
    logs.read_on(1)
    (run / "metrics.jsonl").write_text(content)
    (run / "episodes.csv").write_text(HEADER + "100,1,4,100,10\n")
    logs.read_on(1)
    fresh = KeptLogs(run)
    fresh.read_on(1)
    assert logs.scores(100, str) == fresh.scores(100, str)
    found = {name: each.values.tolist() for name, each in logs.scalars(str).items()}
    assert found == {name: each.values.tolist() for name, each in fresh.scalars(str).items()}
    assert logs.episodes(str)["return"].tolist() == [4]


def test_a_folder_that_vanishes_is_missed(make: Make, client: Any) -> None:
    run = make("a")
    assert client.get("/api/run/a").status_code == 200
    shutil.rmtree(run)
    gone = client.get("/api/run/a")
    assert (gone.status_code, gone.json()) == (404, {"gone": True})
    assert "There is no such folder among the runs." in client.get("/run/a").text
    assert "a" not in listed(client)


# Long logs.


def test_a_series_keeps_its_peaks_in_bounded_memory() -> None:
    series, values = Thinned(), np.zeros(300_000)
    values[[1, 123_456, 299_998]] = 5.0, -3.0, 7.0
    values[200_000] = np.nan
    for begin in range(0, 300_000, 3_000):
        series.extend(range(begin, begin + 3_000), values[begin : begin + 3_000].tolist())
    found = series.logged()
    assert len(found.values) <= MOST_KEPT
    assert (found.count, found.gaps) == (300_000, 1)
    kept = dict(zip(found.steps.tolist(), found.values.tolist(), strict=True))
    assert (kept[1], kept[123_456], kept[299_998], kept[299_999]) == (5, -3, 7, 0)
    assert np.isnan(kept[200_000])
    assert found.steps.tolist() == sorted(kept)
    even = series.even()
    assert set(np.diff(even.steps[:-1]).tolist()) == {series.stretch}
    assert 1_000 < len(even.steps) < MOST_KEPT


def test_few_values_are_all_kept() -> None:
    series, values = Thinned(), np.random.default_rng(0).random(MOST_KEPT)
    series.extend(range(MOST_KEPT), values.tolist())
    assert series.logged().values.tolist() == series.even().values.tolist() == values.tolist()


def test_of_a_long_log_a_sample_is_shown_first(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_logs, "PIECE", LONGEST_LINE + 1)
    monkeypatch.setattr(kept_logs, "LONG_LOG", 1 << 20)
    pad = "x" * 150
    lines = "".join(f'{{"step": {step}, "train/loss": {step}.5, "{pad}": 1}}\n' for step in range(1, 20_001))
    logs = KeptLogs(make("a", lines=lines))
    assert logs.read_on(0)
    said: list[str] = []
    loss = logs.scalars(lambda error: said.append(str(error)))["train/loss"]
    assert "of it is read: a sample of it is shown" in said[-1]
    assert 1_900 < len(loss.steps) <= 2_000
    assert loss.steps[-1] > 19_900
    assert loss.values.tolist() == (loss.steps + 0.5).tolist()
    assert not logs.read_on(60)
    found = logs.scalars(str)["train/loss"]
    assert (found.count, found.steps[0], found.steps[-1]) == (20_000, 1, 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1_000])
def test_a_thousand_runs_and_ten_thousand_requests(runs: int, make: Make, client: Any) -> None:
    many_runs(runs, 10_000, make, client)


def test_some_runs_and_requests(make: Make, client: Any) -> None:
    many_runs(40, 100, make, client)


def many_runs(runs: int, requests: int, make: Make, client: Any) -> None:
    first = make("0", status="finished")  # of a run in progress the silence is said
    for number in range(1, runs):
        shutil.copytree(first, first.parent / str(number))
    assert set(listed(client)) == {str(number) for number in range(runs)}
    tags = {url: client.get(url).headers["ETag"] for url in ("/api/runs", "/api/run/0")}
    for number in range(requests):
        url = list(tags)[number % 2]
        assert client.get(url, headers={"If-None-Match": tags[url]}).status_code == 304


# Damage.


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", b"", "can't read"),
        ("run.json", b'{"format": 4', "can't read"),
        ("run.json", b'{"format": 99, "sha256": 1}', "run.json has format 99, this nexus reads up to"),
        ("run.json", b"[" * 100_000, "can't read"),
        ("run.json", b" " * (9 << 20), "run.json has 9,437,184 bytes: at most 8,388,608 are plausible"),
        ("evaluation.json", b"{}" + b" " * (9 << 20), "evaluation.json has 9,437,186 bytes"),
    ],
)
def test_a_damaged_run_is_shown_as_such(name: str, content: bytes, said: str, make: Make, client: Any) -> None:
    (make("a") / name).write_bytes(content)
    problem = listed(client)["a"]["problem"]
    assert said in problem
    page = client.get("/run/a")
    assert page.status_code == 200
    assert '<p class="remarks">' in page.text
    assert client.get("/api/run/a").json()["problem"] == problem


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\n", b"{\n", b"[1]\n", b'{"step": 1e999}\n', b"x" * 5_000_000, b"\0" * 99]
)
def test_damaged_logs_are_shown_as_far_as_they_go(content: bytes, make: Make, client: Any) -> None:
    run = make("a")
    for name in ("metrics.jsonl", "episodes.csv", "findings.json"):
        (run / name).write_bytes(content)
    assert listed(client)["a"]["problem"] is None
    answer = client.get("/api/run/a").json()
    assert "Not everything could be read" in answer["html"]
    assert answer["data"]["charts"] == []


def test_a_line_of_megabytes_is_skipped(make: Make) -> None:
    run = make("a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("x" * 5_000_000 + '\n{"step": 300, "train/loss": 3.0}\n')
    logs = KeptLogs(run)
    logs.read_on(10)
    assert logs.scalars(str)["train/loss"].steps.tolist() == [100, 200, 300]
    assert len(logs.damages("metrics.jsonl")) == 1
    assert len(logs.damages("metrics.jsonl")[0]) < 400


def test_a_run_that_makes_no_sense_has_no_trace(make: Make, client: Any) -> None:
    for number, more in enumerate([{"config": 3}, {"progress": []}, {"env": None, "config": {}}, {"versions": 1}]):
        make(str(number), more=more)
        for url in (f"/run/{number}", f"/api/run/{number}", "/api/runs"):
            answer = client.get(url)
            assert answer.status_code == 200
            assert "Traceback" not in answer.text


def test_other_folders_are_named(root: Path, make: Make, client: Any) -> None:
    (root / "empty").mkdir()
    (root / "foreign").mkdir()
    (root / "foreign" / "x.txt").write_text("secret")
    (root / "file.txt").write_text("secret")
    make("group/a")
    (make("half") / "run.json").unlink()
    lines = listed(client)
    assert set(lines) == {"empty", "foreign", "group/a", "half"}
    assert lines["empty"]["problem"] == "empty"
    assert lines["foreign"]["problem"] == "not a run: it has no run.json"
    assert "it has no run.json" in lines["half"]["problem"]
    for name in lines:
        assert client.get(f"/run/{name}").status_code == 200
    assert "not a run" in client.get("/run/foreign").text


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    client = TestClient(app.app_for(tmp_path / "later"), base_url="http://127.0.0.1:8765")
    assert client.get("/api/runs").json() == {"folder": str(tmp_path / "later"), "exists": False, "runs": []}
    assert client.get("/").status_code == 200


def test_a_run_itself_can_be_watched(make: Make) -> None:
    client = TestClient(app.app_for(make("a")), base_url="http://127.0.0.1:8765")
    assert [line["path"] for line in client.get("/api/runs").json()["runs"]] == ["."]
    # A browser takes a dot in a path for the folder.
    assert client.get("/run/%2E").status_code == 200 or client.get("/run/").status_code == 200


# Safety.


@pytest.mark.parametrize(
    "name", ["<script>alert(1)<", "naïve run (2)", "a/b", "100%25", "#?&=", "a\u2028b", "..x", '"><img src=x>']
)
def test_any_name_is_right_and_harmless(name: str, make: Make, client: Any) -> None:
    make(name)
    line = listed(client)[name]
    page = client.get(f"/run/{line['path']}")
    assert page.status_code == 200
    assert client.get(f"/api/run/{line['path']}").status_code == 200
    index = client.get("/").text
    for text in (page.text, index):
        assert "<script>alert" not in text
        assert "<img" not in text


def test_a_name_that_is_not_text_is_reached(root: Path, make: Make, client: Any) -> None:
    os.rename(make("a"), os.fsencode(root) + b"/\xff")
    line = listed(client)["\ufffd"]
    assert line["path"] == "%FF"
    assert client.get("/run/%FF").status_code == 200


SECRET = "root of all evil"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "..",
            "../secret",
            "%2e%2e/secret",
            "..%2fsecret",
            "%2e%2e%2fsecret",
            "a/../../secret",
            "a/%2e%2e/%2e%2e/secret",
        ),
        *("%2fetc/passwd", "/etc/passwd", "//etc", "a%00", "%00", "secret%00/../a", "a/run.json", "a/metrics.jsonl"),
        *("link", "link/secret.txt", "..\\secret", "%5c..%5csecret", ".", "a/.", "a//", "%c0%ae%c0%ae/secret", "~root"),
    ],
)
def test_nothing_outside_is_served(path: str, root: Path, make: Make, server: int) -> None:
    make("a")
    outside = root.parent / "secret"
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    shutil.copy(root / "a" / "run.json", outside / "run.json")
    (root / "link").symlink_to(outside)
    for before in ("/run/", "/api/run/", "/"):
        head, body = asked(server, f"GET {before}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert SECRET not in body
        if "link" not in path:
            assert head.split()[1] in ("404", "400"), head
        assert "CartPole" not in body


def test_files_that_lead_outside_are_not_read(root: Path, make: Make, client: Any) -> None:
    outside = root.parent / "metrics.jsonl"
    outside.write_text('{"step": 5, "outside": 5.0}\n')
    run = make("a")
    for name in ("metrics.jsonl", "episodes.csv"):
        (run / name).unlink()
    (run / "metrics.jsonl").symlink_to(outside)
    os.mkfifo(run / "episodes.csv")  # opening it would wait for a writer
    answer = client.get("/api/run/a").json()
    assert answer["data"]["charts"] == []
    assert "leads out of its run folder" in answer["html"]
    (run / "run.json").unlink()
    (run / "run.json").symlink_to(root.parent / "other.json")
    shutil.copy(make("b") / "run.json", root.parent / "other.json")
    assert "leads out of its run folder" in client.get("/api/run/a").json()["problem"]
    assert "leads out of its run folder" in listed(client)["a"]["problem"]


@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:8765", "127.0.0.1.evil.com", "localhost.", "a@127.0.0.1", "", "[::1", "127.0.0.1:x"]
)
def test_another_host_is_refused(host: str, client: Any) -> None:
    for url in ("/", "/api/runs", "/nothing"):
        answer = client.get(url, headers={"Host": host})
        assert answer.status_code == 400
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_its_own_names_are_answered(client: Any) -> None:
    for host in ("127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "127.0.0.1:9999"):
        assert client.get("/", headers={"Host": host}).status_code == 200
    everywhere = app.Guard(app.app_for(Path()), "0.0.0.0")
    assert everywhere.is_ours(["192.168.1.5:8765"])
    assert not everywhere.is_ours(["evil.com"])
    assert not everywhere.is_ours(["127.0.0.1", "evil.com"])


def test_it_only_reads(make: Make, client: Any) -> None:
    run = make("a")
    before = {path: path.read_bytes() for path in run.iterdir()}
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        answer = client.request(method, "/run/a")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    for url in ("/", "/run/a", "/api/run/a", "/api/runs"):
        assert client.head(url).status_code == 200
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_every_answer_is_strict(make: Make, client: Any) -> None:
    make("a")
    for url in ("/", "/run/a", "/api/run/a", "/api/runs", "/run/b", "/api/run/b", "/x"):
        headers = client.get(url, headers={"Origin": "http://evil.com"}).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        rules = headers["Content-Security-Policy"].split("; ")
        assert rules[0] == "default-src 'none'"
        assert "frame-ancestors 'none'" in rules
        assert not any("unsafe" in rule or "*" in rule for rule in rules)
        assert not any(name.lower().startswith("access-control") for name in headers)
        assert "no-store" in headers["Cache-Control"] or "no-cache" in headers["Cache-Control"]


def test_a_fault_is_one_line(make: Make, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make("a")
    monkeypatch.setattr("nexus.dashboard.listing.RunList.to_mapping", lambda self: 1 / 0)
    answer = client.get("/api/runs")
    assert (answer.status_code, answer.text.count("\n")) == (500, 1)
    assert "ZeroDivisionError" in answer.text


# The server.


@pytest.fixture
def server(root: Path) -> Iterator[int]:
    """The port of a server of the runs."""
    listener = serving.bound("127.0.0.1", 0)
    config = uvicorn.Config(app.app_for(root), log_level="critical", lifespan="off", ws="none")
    running = uvicorn.Server(config)
    thread = Thread(target=lambda: running.run(sockets=[listener]))
    thread.start()
    yield listener.getsockname()[1]
    running.should_exit = True
    thread.join()
    listener.close()


def asked(port: int, request: str) -> tuple[str, str]:
    """Head and body of the answer to a request, sent as it is."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode("utf-8", "replace")
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


def test_a_port_that_is_taken_names_the_next_free_one() -> None:
    with serving.bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^port {port} is taken; the next free one: .*dashboard --port \d+$"):
            serving.bound("127.0.0.1", port)
    serving.bound("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "70000"], "port = 70000: needs a number from 0 to 65535; 0 for any that is free"),
        (["--host", "203.0.113.7", "--port", "0"], "can't serve on '203.0.113.7', port 0: "),
        (["file"], "file is a file: needs a folder of runs"),
        (["--prot", "1"], "unknown option --prot; did you mean --port"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["dashboard", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nexus: error: {said}")
    assert error.count("\n") == 1


def test_a_missing_package_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["dashboard"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nexus: error: uvicorn is not installed; get it with: ")
    assert said.count("\n") == 1
    assert "dashboard]" in said


def test_ctrl_c_ends_it_with_one_line(root: Path, make: Make) -> None:
    make("a")
    words = [sys.executable, "-m", "nexus", "dashboard", str(root), "--port", "0"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"Dashboard of {root}: http://127.0.0.1:")
        port = int(line.split("127.0.0.1:")[1].split()[0])
        head, body = asked(port, f"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")
        assert " 200 " in head
        assert json.loads(body)["runs"][0]["name"] == "a"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("Dashboard ended\n", "", 0)


def test_a_log_is_found_where_it_is_said(make: Make) -> None:
    log = GrowingLog(make("a"), "metrics.jsonl")
    assert log.lines(LONGEST_LINE + 1) == (LINES.encode().splitlines(), False)
    assert log.lines(LONGEST_LINE + 1) == ([], False)
