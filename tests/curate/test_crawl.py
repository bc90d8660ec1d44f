"""The crawl of the interpreter's documentation, with a small limit, and the walk over a made-up site."""

import json
from pathlib import Path

import httpx
import psutil
import pytest

from glassbox.curate import crawl as module
from glassbox.curate.crawl import crawl, links, run
from glassbox.curate.reading.warc import Page, pages
from glassbox.errors import GlassboxError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.curation import CrawlStage


def test_a_small_crawl_is_the_same_twice_and_leaves_no_process(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(CrawlStage(kind="crawl", pages=12, file_bytes=20_000), Inputs(), Workspace(tmp_path / name))
    files = sorted((tmp_path / "a" / "pages").iterdir())
    assert len(files) > 1
    assert [path.read_bytes() for path in files] == [
        (tmp_path / "b" / "pages" / path.name).read_bytes() for path in files
    ]
    found = [page for path in files for page in pages(path)]
    assert all(isinstance(page, Page) for page in found)
    report = json.loads((tmp_path / "a" / "crawl.json").read_text())
    assert report["pages"] == len(found) == 12
    assert report["bytes"] == sum(len(page.payload) for page in found)
    assert [page.url for page in found[:3]] == [
        f"{module.HOST}/{name}" for name in ("", "topics.html", "keywords.html")
    ]
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "pydoc_server" in " ".join(child.cmdline())]


def test_a_failed_page_is_counted_and_the_walk_goes_on() -> None:
    site = {"/": "<a href='a.html'>a</a><a href=\"b.html#x\">b</a><a href='c.html'>", "/a.html": "", "/c.html": ""}

    def fetch(path: str) -> bytes:
        if path not in site:
            raise httpx.ReadTimeout("too slow")
        return site[path].encode()

    failed: list[dict[str, str]] = []
    assert [path for path, _ in crawl(fetch, None, failed)] == ["/", "/a.html", "/c.html"]
    assert failed == [{"url": f"{module.HOST}/b.html", "reason": "too slow"}]
    assert [path for path, _ in crawl(fetch, 2, [])] == ["/", "/a.html"]


def test_only_pages_of_the_same_site_are_followed() -> None:
    html = """<a href="os.html#x"> <A HREF='topic?key=FOR'> <a href="topic?key=a&amp;b"> <a href="file:/etc/passwd">
    <a href="https://docs.python.org/3/library/os.html"> <a href="search?key=x"> <a href="get?key=x"> <a href=".">
    <a href="//other.host/x.html"> <a href="test.support.html"> <a href="antigravity.html"> <a href="email.mime.html">
    <a href="unittest.__main__.html"> <a href="x.css"> <a href="../up/x.html"> <a href="mailto:x@y.html">"""
    assert list(links("/index.html", html)) == ["/os.html", "/topic?key=FOR", "/email.mime.html"]


def test_pages_show_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "hunter2")
    with module.pydoc_site(30) as fetch:
        page = fetch("/os.html").decode()
        assert "environ" in page
        assert "hunter2" not in page
        with pytest.raises(GlassboxError, match="could not find object"):
            fetch("/no_such_module_at_all.html")
        assert b"breakpoint" in fetch("/builtins.html")


def test_a_server_that_dies_is_started_again(tmp_path: Path) -> None:
    server = module._Server(timeout=20)
    try:
        server.process.kill()
        server.process.wait()
        with pytest.raises(httpx.HTTPError):
            server.fetch("/os.html")
        assert b"os" in server.fetch("/os.html")
    finally:
        server.stop()
    assert server.process.poll() is not None
