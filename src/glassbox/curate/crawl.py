"""Crawl a site breadth first into WARC files: `run` is the stage, `crawl` the walk, `pydoc_site` the embedded site."""

import gzip
import hashlib
import os
import platform
import re
import selectors
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from html import unescape
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

import httpx

from glassbox.errors import GlassboxError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import atomic_open, write_json
from glassbox.recipe.curation import CrawlStage

HOST = "http://pydoc.localhost"
"""The host recorded pages carry; the port, which the system chose at random, is left out."""
LINK = re.compile(r"""<a\s[^>]*?href\s*=\s*["']([^"'>]+)["']""", re.IGNORECASE)
PAGE = re.compile(r"/[\w.]+\.html|/topic\?key=[^&=/]+")
UNWANTED = {"test", "tests", "idle_test", "idlelib", "turtledemo", "antigravity", "this", "__main__", "__phello__"}
"""Parts of module names not to ask for: tests, and modules that act (open a window, print, run) when imported."""
ERROR = re.compile(r"<title>Pydoc: Error - ")
TAG = re.compile(r"<[^>]*>")
START_SECONDS = 30


def run(config: CrawlStage, inputs: Inputs, workspace: Workspace) -> None:
    """Leaves `pages/*.warc.gz`, one gzip member a record, and `crawl.json`: pages, bytes, failed pages, interpreter.

    Pages come in the order of the breadth-first walk and carry the interpreter's build date, so that two crawls of
    the same interpreter leave the same bytes. A page that fails is counted and listed, never fatal; a site with no page
    at all raises GlassboxError.
    """
    failed: list[dict[str, str]] = []
    count = size = number = 0
    with pydoc_site(config.timeout) as fetch:
        pages = crawl(fetch, config.pages, failed)
        page = next(pages, None)
        while page is not None:
            with atomic_open(workspace.path("pages", f"pages-{number:05d}.warc.gz"), "wb") as file:
                while page is not None and file.tell() < config.file_bytes:
                    url, body = page
                    _write_record(file, url, body)
                    count, size = count + 1, size + len(body)
                    workspace.progress(count, config.pages or count, f"{size / 1e6:.1f} MB")
                    page = next(pages, None)
            number += 1
    if not count:
        reason = failed[0]["reason"] if failed else "no answer"
        raise GlassboxError(f"the crawl of {config.site} found no page: {reason}")
    report = {"site": config.site, "pages": count, "bytes": size, "failed": failed, "python": sys.version.split()[0]}
    write_json(workspace.path("crawl.json"), report)


def crawl(
    fetch: Callable[[str], bytes], limit: int | None, failed: list[dict[str, str]]
) -> Iterator[tuple[str, bytes]]:
    """(path, body) of each page reachable from "/", breadth first, in page order; failures are added to `failed`."""
    queue, seen, count = deque(["/"]), {"/", "/index.html"}, 0
    while queue and (limit is None or count < limit):
        path = queue.popleft()
        try:
            body = fetch(path)
        except (httpx.HTTPError, GlassboxError) as error:
            failed.append({"url": HOST + path, "reason": str(error) or type(error).__name__})
            continue
        count += 1
        yield path, body
        for link in links(path, body.decode("utf-8", "replace")):
            if link not in seen:
                seen.add(link)
                queue.append(link)


def links(path: str, html: str) -> Iterator[str]:
    """Paths of the same site's pages that a page links to: modules and topics, no files, searches or tests."""
    for href in LINK.findall(html):
        parts = urlsplit(urljoin(HOST + path, urldefrag(unescape(href).strip())[0]))
        if f"{parts.scheme}://{parts.netloc}" != HOST:
            continue
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        module = parts.path.removesuffix(".html").lstrip("/").split(".")
        if PAGE.fullmatch(unquote(target)) and not UNWANTED.intersection(module):
            yield quote(unquote(target), safe="/?=.")


@contextmanager
def pydoc_site(timeout: float) -> Iterator[Callable[[str], bytes]]:
    """Start the documentation server and yield `fetch(path) -> body`, which raises httpx.HTTPError or GlassboxError.

    The server is killed on the way out, whatever happened. If a page kills the server, it is started again.
    """
    server = _Server(timeout)
    try:
        yield server.fetch
    finally:
        server.stop()


class _Server:
    """The server's process and a client for it."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-I", "-S", "-W", "ignore", str(Path(__file__).with_name("pydoc_server.py"))]
        # Nothing of the user's environment reaches the pages (module os shows it); a fixed hash seed orders sets.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=os.path.abspath(os.sep),
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TERM": "dumb", "HOME": "/", "TZ": "UTC"},
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self._port()}", timeout=self.timeout, trust_env=False)

    def _port(self) -> int:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            line = self.process.stdout.readline() if selector.select(START_SECONDS) else b""
        if not line.strip().isdigit():
            self.process.kill()
            self.process.wait()
            raise GlassboxError("the interpreter's documentation server did not start")
        return int(line)

    def fetch(self, path: str) -> bytes:
        try:
            response = self.client.get(path, headers={"User-Agent": "glassbox"})
            response.raise_for_status()
        except (httpx.TimeoutException, httpx.TransportError):
            # The server answers one page at a time: one that hangs or has died must not take the rest with it.
            self.stop()
            self._start()
            raise
        if ERROR.search(response.text[:1000]):
            raise GlassboxError(" ".join(unescape(TAG.sub(" ", response.text[response.text.rfind("<td") :])).split()))
        return response.content

    def stop(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _write_record(file: IO[bytes], path: str, body: bytes) -> None:
    """Append one response record as a gzip member of its own. Nothing in it depends on the time of the crawl."""
    url = HOST + path
    digest = hashlib.sha256(body).hexdigest()
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=UTF-8\r\nContent-Length: %d\r\n\r\n" % len(body)
    head = (
        "WARC/1.1\r\nWARC-Type: response\r\n"
        f"WARC-Record-ID: <{uuid.uuid5(uuid.NAMESPACE_URL, f'{url} {digest}').urn}>\r\n"
        f"WARC-Target-URI: {url}\r\nWARC-Date: {_build_date()}\r\nWARC-Payload-Digest: sha256:{digest}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http) + len(body)}\r\n\r\n"
    )
    file.write(gzip.compress(head.encode() + http + body + b"\r\n\r\n", compresslevel=6, mtime=0))


def _build_date() -> str:
    """The interpreter's build date, the date of what the pages say."""
    try:
        built = datetime.strptime(" ".join(platform.python_build()[1].split()), "%b %d %Y %H:%M:%S")
    except ValueError:
        built = datetime(1970, 1, 1)
    return built.strftime("%Y-%m-%dT%H:%M:%SZ")
