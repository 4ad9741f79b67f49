"""The pictures in the documentation are those that the record names, and are small."""

import io
import json
import re
from pathlib import Path

import pytest

from benchmarks import screenshots

ROOT = Path(__file__).resolve().parent.parent
NAMES = {f"{name}-{scheme}.png" for name in ("dashboard/list", "report/cartpole", "report/broken", "report/atari")
         for scheme in ("light", "dark")}  # fmt: skip


def test_each_picture_is_the_one_of_the_record() -> None:
    rows = json.loads((ROOT / "docs" / "results" / "screenshots.json").read_text(encoding="utf-8"))["rows"]
    sizes = {row["picture"]: row["bytes"] for row in rows}
    assert set(sizes) == NAMES
    for name, size in sizes.items():
        assert (ROOT / "docs" / "images" / name).stat().st_size == size <= 200_000


@pytest.mark.parametrize("page", ["README.md", "docs/report.md", "docs/dashboard.md"])
def test_a_page_shows_both_schemes_of_a_picture(page: str) -> None:
    path = ROOT / page
    found = re.findall(r'(?:srcset|src)="([^"]+)-(light|dark)\.png"', path.read_text(encoding="utf-8"))
    assert len(found) >= 2
    for name, scheme in found:
        assert (path.parent / f"{name}-{scheme}.png").exists()
    assert [name for name, scheme in found if scheme == "dark"] == [name for name, scheme in found if scheme == "light"]


def test_a_picture_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    content = io.BytesIO()
    image.new("RGB", (40, 30), "red").save(content, "png")
    path = tmp_path / "a" / "b.png"
    assert screenshots.write_picture(content.getvalue(), path, 20) == path.stat().st_size
    with image.open(path) as written:
        assert (written.size, written.convert("RGB").getpixel((39, 19))) == ((40, 20), (255, 0, 0))
    monkeypatch.setattr(screenshots, "MOST_BYTES", 50)
    with pytest.raises(ValueError, match="needs at most 50"):
        screenshots.write_picture(content.getvalue(), path, 20)
