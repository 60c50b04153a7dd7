"""The Perspective API's client against a real HTTP server that misbehaves."""

import json
import math
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from quark.config import Perspective
from quark.core import schemas
from quark.scorers import KEY, ScorerError
from quark.scorers import perspective as client
from quark.scorers.cache import Cached, ScoreCache
from quark.scorers.perspective import RATE, PerspectiveAPI, TransientError
from quark.stages.score import score_stage
from quark.stages.settings import ScoreSettings

SECRET = "a-key-that-nobody-may-see"


class Service(ThreadingHTTPServer):
    """Scores a text by its length; what it does otherwise stands in `faults`, oldest first.

    A fault is of one text (or of all, under ""): how often, and what is sent.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.faults, self.lock = [], {}, threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1alpha1/comments:analyze"

    def fault(self, text):
        """What to do wrong with this text, this time."""
        with self.lock:
            for name in (text, ""):
                times, fault = self.faults.get(name, (0, None))
                if times:
                    self.faults[name] = (times - 1, fault)
                    return fault
        return None

    def times(self):
        """How often each text was sent."""
        return Counter(question["comment"]["text"] for _, _, question in self.requests)


class Handler(BaseHTTPRequestHandler):
    """Answers as the service does, or as its fault says."""

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers, question))
        text = question["comment"]["text"]
        fault = self.server.fault(text)
        answer = {
            "attributeScores": {"TOXICITY": {"summaryScore": {"value": len(text) / 10}}},
            "clientToken": question["clientToken"],
        }
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "slow":
            time.sleep(1.0)
        if fault == "another":
            answer["clientToken"] = "0123456789abcdef"
        if fault == "wild":
            answer["attributeScores"]["TOXICITY"]["summaryScore"]["value"] = 7
        body = json.dumps(answer).encode()
        if fault == "truncated":
            body = body[: len(body) // 2]
        status, headers = 200, {}
        if isinstance(fault, tuple):
            status, message, headers = fault
            body = json.dumps({"error": {"message": message}}).encode() if message else b"<html>"
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def service(monkeypatch):
    server = Service()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setenv(RATE, "1000")
    monkeypatch.setattr(client, "_backoff", lambda state: 0.0)  # patience is tested by itself
    monkeypatch.setattr(client, "TIMEOUT", 0.5)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def how(service, label="then"):
    return Perspective(url=service.url, attribute="TOXICITY", label=label)


@pytest.fixture
def scorer(service, tmp_path):
    return PerspectiveAPI(how(service), ScoreCache(tmp_path / "scores.sqlite"))


def test_a_question(service, scorer):
    assert scorer.score(["not sent"], ["kind"]).tolist() == [0.4]
    ((path, headers, question),) = service.requests
    assert path == "/v1alpha1/comments:analyze"  # no key in the address, which proxies log
    assert headers["X-Goog-Api-Key"] == SECRET
    assert question["comment"] == {"text": "kind", "type": "PLAIN_TEXT"}
    assert question["languages"] == ["en"] and question["doNotStore"] is True
    assert question["requestedAttributes"] == {"TOXICITY": {}}


def test_answers_stand_in_the_order_asked(service, scorer):
    texts = ["x" * (i % 9 + 1) for i in range(40)]
    service.faults = {"xxx": (2, "slow")}
    assert scorer.score([""] * 40, texts).tolist() == [len(text) / 10 for text in texts]


BUSY = (429, "Quota exceeded", {"Retry-After": "0"})
BROKEN = (503, None, {})


@pytest.mark.parametrize(
    "fault", [BUSY, BROKEN, "slow", "drop", "truncated", "another", "wild"], ids=str
)
def test_what_may_pass_is_asked_again(service, scorer, fault):
    service.faults = {"kind": (2, fault)}
    assert scorer.score(["", ""], ["kind", "no"]).tolist() == [0.4, 0.2]
    assert service.times() == {"kind": 3, "no": 1}


def test_what_does_not_pass_is_null_with_its_reason(service, scorer, tmp_path):
    service.faults = {
        "busy": (99, BUSY),
        "odd": (99, (400, "Comment is too long", {})),
        "slow": (99, "slow"),
    }
    texts = ["busy", "fine", "odd", " ", "slow"]
    found = scorer.score([""] * 5, texts)
    assert found[1] == 0.4 and np.isnan(found[[0, 2, 3, 4]]).all()
    assert scorer.why("", "busy") == "429: Quota exceeded"
    assert scorer.why("", "odd") == "400: Comment is too long"
    assert scorer.why("", " ") == "empty: the service does not score it"
    assert scorer.why("", "slow").startswith("ReadTimeout")
    # Asking again cannot help the odd one, and the empty one is never sent.
    tries = client.TRIES
    assert service.times() == {"busy": tries, "fine": 1, "odd": 1, "slow": tries}


@pytest.mark.parametrize(
    "fault",
    [(400, "API key not valid. Please pass a valid API key.", {}), (403, "Forbidden", {})],
    ids=["400", "403"],
)
def test_a_refused_key_stops_at_once(service, scorer, fault):
    service.faults = {"": (99, fault)}
    with pytest.raises(ScorerError, match=f"refuses the key in {KEY}: {fault[0]}"):
        scorer.score([""], ["kind"])
    assert len(service.requests) == 1


def test_a_service_that_is_gone_stops_the_stage(service, scorer):
    service.faults = {"": (9999, BROKEN)}
    texts = [f"text {i}" for i in range(client.FEWEST)]
    with pytest.raises(ScorerError, match=r"no answer to 8 texts .* 503: <html>\. What was scored"):
        scorer.score([""] * len(texts), texts)


def test_refused_texts_are_no_outage(service, scorer):
    service.faults = {
        "": (9999, (400, "Attribute TOXICITY does not support request languages", {}))
    }
    texts = [f"text {i}" for i in range(client.FEWEST)]
    assert np.isnan(scorer.score([""] * len(texts), texts)).all()
    assert "does not support" in scorer.why("", "text 0")


def test_patience(monkeypatch):
    class State:
        def __init__(self, failure):
            self.outcome = self
            self.exception = lambda: failure

    monkeypatch.setattr(client, "_backoff", lambda state: 4.0)
    assert client._wait(State(TransientError("busy", after=30.0))) == 30.0
    assert client._wait(State(TransientError("busy", after=1.0))) == 4.0
    assert client._wait(State(None)) == 4.0


def test_the_quota_is_kept(service, tmp_path, monkeypatch):
    monkeypatch.setenv(RATE, "50")
    scorer = PerspectiveAPI(how(service), ScoreCache(tmp_path / "scores.sqlite"))
    begun = time.monotonic()
    scorer.score([""] * 11, [f"text {i}" for i in range(11)])
    assert time.monotonic() - begun >= 0.2  # the first at once, ten more at 50 a second


@pytest.mark.parametrize("given", ["many", "0", "-1", "nan", "inf"])
def test_a_quota_that_is_none(service, tmp_path, monkeypatch, given):
    monkeypatch.setenv(RATE, given)
    with pytest.raises(ScorerError, match=f"{RATE} is '{given}'; it must be a number above 0"):
        PerspectiveAPI(how(service), ScoreCache(tmp_path / "scores.sqlite"))


def test_without_a_key(service, tmp_path, monkeypatch):
    monkeypatch.delenv(KEY)
    with pytest.raises(ScorerError, match=f"export {KEY}="):
        PerspectiveAPI(how(service), ScoreCache(tmp_path / "scores.sqlite"))


def stage(service, tmp_path, samples, label="then"):
    """Run the stage; return its scores, their reasons and its report."""
    settings = ScoreSettings(scorer="perspective", perspective=how(service, label))
    out = tmp_path / "scores.parquet"
    texts = samples(["kind", "odd", "", "kind"])
    score_stage(settings, texts, out, cache=tmp_path / "scores.sqlite")
    table = schemas.read(out, schemas.SCORES)
    report = json.loads((tmp_path / "scores.json").read_text())
    return table["score"].to_pylist(), table["error"].to_pylist(), report


def test_the_stage(service, tmp_path, samples, caplog):
    caplog.set_level("DEBUG")
    service.faults = {"odd": (1, (400, "Language not supported", {}))}
    empty = "empty: the service does not score it"
    scores, errors, report = stage(service, tmp_path, samples)
    assert scores == [0.4, None, None, 0.4]
    assert errors == [None, "400: Language not supported", empty, None]
    assert report["errors"] == {"400: Language not supported": 1, empty: 1}
    assert report["scorer_version"] == "TOXICITY then"
    assert service.times() == {"kind": 1, "odd": 1}
    scores, errors, _ = stage(service, tmp_path, samples)  # again: the known one is not asked for
    assert scores == [0.4, 0.3, None, 0.4] and errors == [None, None, empty, None]
    assert service.times() == {"kind": 1, "odd": 2}
    stage(service, tmp_path, samples, label="now")  # the service has changed since
    assert service.times() == {"kind": 2, "odd": 3}
    for file in tmp_path.iterdir():
        assert SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in caplog.text
    assert "Perspective ends with 2026" in caplog.text


def left_behind(folder, caplog, raised=None):
    """All bytes that a run left: its files, its log, and the trace of what it raised."""
    trace = "".join(traceback.format_exception(raised)) if raised else ""
    files = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    return files + (caplog.text + trace).encode(errors="backslashreplace")


@pytest.mark.parametrize(
    "given", [f"{SECRET}\r\n", f" \t{SECRET} ", f"{SECRET}\N{NO-BREAK SPACE}"], ids=ascii
)
def test_blanks_around_a_key_are_cut(service, tmp_path, samples, monkeypatch, caplog, given):
    caplog.set_level("DEBUG")
    monkeypatch.setenv(KEY, given)
    scores, _, _ = stage(service, tmp_path, samples)
    assert scores == [0.4, 0.3, None, 0.4]
    assert {headers["X-Goog-Api-Key"] for _, headers, _ in service.requests} == {SECRET}
    assert SECRET.encode() not in left_behind(tmp_path, caplog)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (f"{SECRET}\n{SECRET}", 26),
        (f"{SECRET}\r\nX-Other: {SECRET}", 26),
        (f"{SECRET}\N{LATIN SMALL LETTER E WITH ACUTE}", 26),
        (f"\N{LEFT DOUBLE QUOTATION MARK}{SECRET}", 1),
        (f"{SECRET}\udcff", 26),  # a byte that is not UTF-8
        (f"{SECRET} # of the lab", 26),
        (f"{SECRET}\x1b[2J", 26),
    ],
    ids=ascii,
)
def test_a_key_that_no_header_holds_is_refused_unseen(
    service, tmp_path, samples, monkeypatch, caplog, given, place
):
    caplog.set_level("DEBUG")
    monkeypatch.setenv(KEY, given)
    fault = rf"{KEY} in the environment is no key: character {place} of {len(given)} is not"
    with pytest.raises(ScorerError, match=fault) as caught:
        stage(service, tmp_path, samples)
    assert not service.requests and not (tmp_path / "scores.parquet").exists()
    assert SECRET.encode() not in left_behind(tmp_path, caplog, caught.value)


def test_a_key_that_is_too_long_for_the_service(service, tmp_path, samples, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv(KEY, SECRET * 4000)
    scores, errors, _ = stage(service, tmp_path, samples)
    assert scores == [None] * 4 and all(errors)
    assert SECRET.encode() not in left_behind(tmp_path, caplog)


@pytest.mark.parametrize("status", [400, 401, 503])
def test_a_service_that_repeats_the_key(service, tmp_path, samples, caplog, status):
    caplog.set_level("DEBUG")
    service.faults = {"": (99, (status, f"{'x' * 191} {SECRET} is odd", {}))}
    raised = None
    try:
        _, errors, _ = stage(service, tmp_path, samples)
        assert errors[0] == f"{status}: {'x' * 191} [key] is"  # 200 characters are kept
    except ScorerError as error:
        raised = error
        assert "[key]" in str(error)
    assert (raised is not None) == (status == 401)
    assert SECRET.encode() not in left_behind(tmp_path, caplog, raised)


def test_the_log_of_the_verb_has_neither_key_nor_a_line_for_each_request(
    service, tmp_path, samples
):
    settings = ScoreSettings(scorer="perspective", perspective=how(service)).model_dump_json()
    table = samples(["kind", "no", "odd"])
    verb = [sys.executable, "-m", "quark.cli", "score", "--settings", settings, "--samples", table]
    files = ["--out", tmp_path / "scores.parquet", "--cache", tmp_path / "scores.sqlite"]
    done = subprocess.run([*verb, *files], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and len(service.requests) == 3, said
    assert "Perspective ends with 2026" in said
    assert "HTTP Request" not in said and SECRET not in said


def test_the_stage_needs_a_cache(service, tmp_path, samples):
    settings = ScoreSettings(scorer="perspective", perspective=how(service))
    with pytest.raises(ScorerError, match="perspective is a service: give a cache"):
        score_stage(settings, samples(["a"]), tmp_path / "scores.parquet")


def test_an_interrupted_run_asks_for_no_text_twice(service, tmp_path):
    """A service that breaks down half way: what it scored before is kept."""
    cache = ScoreCache(tmp_path / "scores.sqlite")
    texts = [f"text {i:02}" for i in range(24)]
    service.faults = {text: (99, BROKEN) for text in texts[8:]}
    with pytest.raises(ScorerError):
        Cached(PerspectiveAPI(how(service), cache), cache, 8).score([""] * 24, texts)
    service.faults = {}
    found = Cached(PerspectiveAPI(how(service), cache), cache, 8).score([""] * 24, texts)
    assert found.tolist() == [0.7] * 24
    assert all(service.times()[text] == 1 for text in texts[:8])
    assert not math.isnan(found.sum())
