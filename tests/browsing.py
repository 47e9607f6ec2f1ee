"""Pages in a real browser, for tests: chromium by playwright, and a folder served beside it."""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT = 120_000
"""Milliseconds that a busy machine may take for a state that a test waits for."""


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator:
    """Chromium, and the address at which a folder is served; without chromium the test is skipped and says why."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which `make test-site` installs")
    if CHROMIUM is None:
        pytest.skip("needs chromium or google-chrome on the PATH, in which the pages are tried; install one of them")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    address = re.search(r"http://\S+?/", server.stdout.readline())[0]
    with playwright.sync_playwright() as api:
        opened = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened, address
        opened.close()
    server.terminate()
    server.wait()


@contextlib.contextmanager
def page_of(opened, address: str, wrong: list[str], **options) -> Iterator:
    """An empty page, whose errors and requests to elsewhere are added to `wrong`."""
    page = opened.new_page(**options)
    page.set_default_timeout(WAIT)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda x: None if x.url.startswith((address, "data:", "blob:")) else wrong.append(x.url))
    yield page
    page.close()
