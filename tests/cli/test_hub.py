"""Agents on a hub, which is a small server on this machine: published with their scores, fetched pinned and safe."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cases import call, refused
from dream_agents import dreamer
from worldmodels.agent import AGENT_FILE, load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.storage.hub import HubName
from worldmodels.evaluation import report
from worldmodels.run.model_card import model_card

Capture = pytest.CaptureFixture[str]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the stand-in holds: repositories with files, what was asked for, and how it misbehaves."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.sizes: dict[str, int] = {}
        self.damaged = False
        self.asked: list[str] = []
        self.cut = False


class Handler(BaseHTTPRequestHandler):
    """The few addresses of a hub that are used."""

    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _send(self, content: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _json(self, content: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(content).encode(), status, Content_Type="application/json", **headers)

    def do_GET(self) -> None:
        hub, parts = self.hub, self.path.partition("?")[0].strip("/").split("/")
        hub.asked.append(self.path)
        if parts[:2] == ["api", "models"]:
            repo, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            if repo not in hub.repos:
                self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            elif revision not in ("main", COMMIT):
                self._json({"error": "Invalid rev"}, 404, X_Error_Code="RevisionNotFound")
            else:
                self._json(
                    {"id": repo, "sha": COMMIT, "siblings": [self._about(repo, name) for name in hub.repos[repo]]}
                )
            return
        repo, name = "/".join(parts[:2]), "/".join(parts[4:])
        content = hub.repos[repo][name]
        if hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        self._send(content[: len(content) // 2] if hub.cut else content, length=len(content))
        if hub.cut:
            self.close_connection = True

    def _about(self, repo: str, name: str) -> dict[str, Any]:
        content = self.hub.repos[repo][name]
        size = self.hub.sizes.get(name, len(content))
        sha256 = hashlib.sha256(content).hexdigest()
        return {"rfilename": name, "size": size, "lfs": {"size": size, "sha256": sha256, "pointerSize": 100}}

    def do_POST(self) -> None:
        hub, parts = self.hub, self.path.strip("/").split("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._json({"error": "Invalid credentials"}, 401)
        elif self.path == "/api/repos/create":
            about = json.loads(body)
            name = f"{about.get('organization') or 'me'}/{about['name']}"
            hub.repos.setdefault(name, {})
            self._json({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif parts[4] == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._json({"files": files})
        else:
            for line in body.splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    content = base64.b64decode(one["value"]["content"])
                    hub.repos["/".join(parts[2:4])][one["value"]["path"]] = content
            self._json({"commitUrl": f"http://{self.headers['Host']}/me/agent/commit/{COMMIT}", "commitOid": COMMIT})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    content = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": content}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # of a client that has read enough
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    monkeypatch.setenv("WORLDMODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield content
    server.shutdown()
    server.server_close()


@pytest.fixture
def shipped() -> bytes:
    from worldmodels.agent_files import shipped_path

    return shipped_path("car-racing").read_bytes()


def scores(**other: Any) -> dict[str, Any]:
    """Scores of two whole episodes."""
    import numpy as np

    from worldmodels.tasks import get_task

    return report(get_task("car-racing"), "agent", "gymnasium", [1, 2], np.array([900.0, 910.0])) | other


def test_a_published_agent_comes_back_pinned_with_its_scores(hub: Hub, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(scores()))
    outcome = call(capsys, "push", "car-racing", "me/agent", "--scores", "scores.json")
    assert outcome.code == 0, outcome.err
    files = hub.repos["me/agent"]
    assert set(files) == {AGENT_FILE, "agent.json", "scores.json", "README.md"}
    page = files["README.md"].decode()
    front = yaml.safe_load(page.split("---")[1])
    assert front["license"] == "mit" and "car-racing" in front["tags"] and front["library_name"] == "worldmodels"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == "905.0 +/- 7.1"
    assert "841.5 to 968.5" in page and "gymnasium" in page and 'load_agent("hf://me/agent")' in page
    hub.asked.clear()
    outcome = call(capsys, "pull", "me/agent", "--out", "mine")
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [AGENT_FILE, "origin.json"]
    origin = json.loads((tmp_path / "mine" / "origin.json").read_text())
    assert (origin["hub"], origin["revision"], origin["asked_for"]) == ("me/agent", COMMIT, "main")
    agent = load_agent(tmp_path / "mine")
    assert agent.digest() == load_agent("car-racing").digest() and agent.info["origin"] == f"hf://me/agent@{COMMIT}"
    assert [path for path in hub.asked if "/resolve/" in path] == [f"/me/agent/resolve/{COMMIT}/{AGENT_FILE}"]
    assert call(capsys, "pull", "me/agent", "--out", "mine").code == 0
    assert load_agent(f"hf://me/agent@{COMMIT}").digest() == agent.digest()


def test_the_page_says_how_many_laps_were_finished_if_the_scores_do() -> None:
    agent, finished = load_agent("car-racing"), {"goal": "finished laps", "count": 1, "share": 0.5, "ci95": [0.1, 0.9]}
    assert "| finished laps | 50% (10% to 90%) |" in model_card(agent, "me/agent", scores(finished=finished), "mit")
    for old in ({}, {"finished": None}, {"finished": {"share": "half"}}):
        assert "finished" not in model_card(agent, "me/agent", scores(**old), "mit")


def test_a_score_that_was_cut_short_is_not_given_as_one(hub: Hub) -> None:
    agent = load_agent("car-racing")
    page = model_card(agent, "me/agent", scores(cut_short=True, steps=10), "mit")
    assert "model-index" not in page and "cut short at 10 steps: not a score" in page
    assert "No score was given" in model_card(agent, "me/agent", None, "mit")
    odd = model_card(agent, "me/agent", None, "mit\n---\n# <b>")
    assert yaml.safe_load(odd.split("\n---\n")[0].removeprefix("---"))["license"] == "mit\n---\n# <b>"
    assert "a linear controller (C)" in page
    hidden = model_card(dreamer(hidden=5), "me/agent", None, "mit")
    assert "linear controller" not in hidden and ", 5 hidden units" in hidden


def test_what_cannot_be_published_is_said_in_a_line(
    hub: Hub, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.json").write_text(json.dumps(scores(task="take-cover")))
    refused(call(capsys, "push", "car-racing", "me/a", "--scores", "other.json"), "scores are of take-cover")
    (tmp_path / "none.json").write_text("{}")
    refused(call(capsys, "push", "car-racing", "me/a", "--scores", "none.json"), "holds no scores")
    refused(call(capsys, "push", "car-racing", "../a"), "OWNER/NAME")
    refused(call(capsys, "push", "nothing", "me/a"), "no agent called 'nothing'")
    refused(call(capsys, "push", "car-racing"), "expected an agent and where to publish it")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(call(capsys, "push", "car-racing", "me/a"), "HF_TOKEN")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refused(call(capsys, "push", "car-racing", "me/a"), "without a token", "hf auth login")
    assert hub.repos == {}


def test_what_cannot_be_fetched_is_said_in_a_line(hub: Hub, shipped: bytes, tmp_path: Path, capsys: Capture) -> None:
    hub.repos["me/agent"] = {AGENT_FILE: shipped}
    hub.repos["me/pickles"] = {"agent.pt": b"\x80\x04", "pytorch_model.bin": b"\x80\x04", "../../evil": b"1"}
    hub.repos["me/wrong"] = {AGENT_FILE: b"\x80\x04 a pickle under another name"}
    refused(call(capsys, "pull", "me/nothing"), "there is no hf://me/nothing@main on the hub", "HF_TOKEN")
    refused(call(capsys, "pull", "me/agent@v9"), "has no such revision")
    refused(call(capsys, "pull", "me/pickles"), "holds no agent", "never downloaded")
    refused(call(capsys, "pull", "me/wrong"), "is not a safetensors file of worldmodels")
    hub.sizes[AGENT_FILE] = 1 << 40
    refused(call(capsys, "pull", "me/agent"), "too large")
    hub.sizes[AGENT_FILE] = 1000
    refused(call(capsys, "pull", "me/agent"), "has not the 1,000 bytes that the hub says")
    hub.sizes.clear()
    hub.cut = True
    refused(call(capsys, "pull", "me/agent"), "me/agent")
    assert not (tmp_path / "agent").exists() and not list((tmp_path / "cache").rglob("*.tmp"))
    assert not [path for path in hub.asked if "pickles/resolve" in path]
    hub.cut = False
    hub.damaged = True
    refused(call(capsys, "pull", "me/agent"), "damaged on the way")
    assert not (tmp_path / "cache" / "hub" / "me--agent" / COMMIT / AGENT_FILE).exists()
    hub.damaged = False
    (tmp_path / "agent").mkdir()
    refused(call(capsys, "pull", "me/agent"), "holds something else")


def test_a_hub_that_cannot_be_reached_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(call(capsys, "pull", "me/agent"), "cannot reach hf://me/agent@main", "run again later")


@pytest.mark.parametrize("text", ["a", "a/b/c", "../b", "a/..", "a/b@", "a/b@../c", "a b/c", "/a/b", "a/b.git", "-a/b"])
def test_names_that_no_repository_has_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="OWNER/NAME"):
        HubName.of(text)
    assert str(HubName.of("hf://a/b@v1")) == "hf://a/b@v1" and HubName.of("a/b").revision == "main"
