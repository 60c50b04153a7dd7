"""What people open in a browser once a run is finished: Snakemake's report, and MLflow's pages."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from browser import ask, dom, needs_chromium, picture

pytestmark = [pytest.mark.slow, needs_chromium]
PAGE = "results/report/toxicity.html"
# Opens each result of each category as a reader would, and tells the name of each file shown.
READER = """async () => {
    const find = text => [...document.querySelectorAll("a, li, button, label, span, div")]
        .filter(e => e.textContent.trim() === text).pop();
    const press = async text => { find(text).click(); await pause(); };
    const eyes = () => [...document.querySelectorAll("a[iconname=eye]")];
    const name = source => (source.match(/filename=([^;]*)/) || [])[1];
    const seen = {};
    await pause();
    for (const category of Object.keys(categories)) {
        seen[category] = [];
        await press(category);
        for (const table of ["costs", "measured and published"].filter(find).concat(null)) {
            if (table) await press(table);
            for (let i = 0; i < eyes().length; i++) {
                if (eyes()[i].href.startsWith("data:")) seen[category].push(name(eyes()[i].href));
                else {
                    eyes()[i].click();
                    await pause();
                    const shown = [...document.querySelectorAll("iframe, img")].pop();
                    seen[category].push(name(shown.src));
                }
            }
        }
        seen[category] = [...new Set(seen[category])].sort();
        await press("Results");
    }
    return seen;
}"""


@pytest.fixture(scope="module")
def reported(finished, tmp_path_factory):
    twin = finished.copy(tmp_path_factory.mktemp("report") / "run")
    twin.run(targets=(PAGE,))
    twin.run("--report", "results/report.html", targets=(PAGE,))
    return twin.folder / "results"


def test_the_report_opens_and_each_page_table_and_figure_is_reached(reported):
    assert ask(reported / "report.html", READER) == {
        "Pages": ["toxicity.html"],
        "Tables": ["toxicity.csv", "toxicity_cost.csv"],
        "Figures": ["curves.svg", "published.svg", "rewards.svg", "tradeoff.svg"],
    }


def test_the_page_of_a_task_shows_its_figures_and_samples(reported, tmp_path):
    page = reported / "report/toxicity.html"
    found = ask(
        page,
        """async () => ({
            figures: [...document.images].map(i => i.complete && i.naturalWidth > 100),
            tables: document.querySelectorAll("table").length,
            text: document.body.innerText})""",
    )
    assert found["figures"] == [True] * 4 and found["tables"] >= 3
    assert "Samples" in found["text"] and "Settings" in found["text"]
    pixels = picture(f"file://{page}", tmp_path / "page.png")
    assert pixels.shape[:2] == (900, 1400)
    inked = (pixels[..., :3].min(axis=-1) < 0.5).mean(axis=1)  # dark pixels of each line
    assert (inked[:450] > 0).mean() > 0.2 and (inked[450:] > 0).mean() > 0.2, "half a page is blank"


@pytest.fixture
def tracking_page(reported):
    """The address of MLflow's page, as `make mlflow` serves it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--workers", "1", "--backend-store-uri", f"sqlite:///{reported}/mlflow.db"],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health").close()
                break
            except OSError:
                assert server.poll() is None, "mlflow ui ended"
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def test_mlflow_shows_runs_curves_and_the_registered_model(tracking_page):
    asked = json.dumps({"experiment_ids": ["1"]}).encode()
    request = urllib.request.Request(
        f"{tracking_page}/api/2.0/mlflow/runs/search", asked, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        runs = {run["info"]["run_name"]: run["info"] for run in json.load(answer)["runs"]}
    assert set(runs) >= {"base/seed-1", "quark/seed-1", "quark/seed-1/iteration-0"}

    listed = dom(f"{tracking_page}/#/experiments/1/runs")
    assert "base/seed-1" in listed and "quark/seed-1" in listed
    own = f"{tracking_page}/#/experiments/1/runs/{runs['quark/seed-1/iteration-0']['run_id']}"
    written = dom(own)
    assert all(name in written for name in ("lm_loss", "training/kl", "grad_norm"))
    assert "mean_reward" in dom(
        f"{own}/model-metrics"
    )  # the first chart; others come with a scroll
    assert "Version 1" in dom(f"{tracking_page}/#/models/toxicity-quark")
