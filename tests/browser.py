"""Pages in a headless Chromium: what it shows of them, and what a script finds out there."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(shutil.which, NAMES), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
WAIT = "--virtual-time-budget=20000"  # milliseconds of the page's own clock
# Errors are caught from the first line on; the answer is left in the page for --dump-dom.
PROBE = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message));
const pause = () => new Promise(done => setTimeout(done, 200));
addEventListener("load", async () => {
    const out = document.createElement("pre");
    out.id = "probe";
    try { out.textContent = JSON.stringify({found: await (%s)(), errors}); }
    catch (error) { out.textContent = JSON.stringify({found: null, errors: [String(error)]}); }
    document.body.append(out);
});
</script>"""


def ask(page: Path, script: str) -> Any:
    """What a script finds once a page is loaded: the result of an async function's text.

    Raises:
        AssertionError: the page or the script had an error.
    """
    probe = page.with_name("probe.html")
    probe.write_text(page.read_text().replace("<head>", "<head>" + PROBE % script, 1))
    shown = dom(f"file://{probe}")
    answer = re.search(r'<pre id="probe">(.*?)</pre>', shown, re.DOTALL)
    assert answer, shown[-2000:]
    said = json.loads(html.unescape(answer[1]))
    assert not said["errors"], said["errors"]
    return said["found"]


def dom(url: str) -> str:
    """A page as it stands after its scripts have run."""
    return _chromium(WAIT, "--dump-dom", url)


def picture(url: str, out: Path) -> Any:
    """The pixels of a page, (height, width, 4), each in [0, 1]; the picture stays at `out`."""
    from matplotlib.image import imread

    _chromium(WAIT, "--window-size=1400,900", f"--screenshot={out}", url)
    return imread(out)


def _chromium(*arguments: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180).stdout
