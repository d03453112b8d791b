"""Reads SAEs from a hub that runs here, uploads one to it, and takes it away; prints what it saw as JSON.

The hub answers what huggingface_hub asks of several repositories: `me/saes`, which has a SAELens folder, a Gemma Scope archive
and a large file beside them, in two commits; those below `published`, `<owner>/<name>`, each with the files of one layout; and
`me/new`, which is made by an upload.
"""

import base64
import hashlib
import json
import os
import re
import sys
from pathlib import Path

from tests.hub_server import NEW, OLD, Answers, error_of, serve
from tests.interop.layouts import LAYOUTS, X

REPO = "me/saes"


class Hub(Answers):
    """A hub of files by commit, that remembers what was read and what was uploaded."""

    files: dict[str, dict[str, dict[str, bytes]]] = {}  # noqa: RUF012 (by repository and commit)
    main, gone = OLD, False
    read: list[str] = []  # noqa: RUF012
    uploaded: dict[str, str] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if Hub.gone:
            self.close_connection = True  # without an answer
        elif (found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(\w+))?", path)) and found[1] in Hub.files:
            commit = Hub.main if found[2] in (None, "main") else found[2]
            if commit not in Hub.files[found[1]]:
                self.answer(404, X_Error_Code="RevisionNotFound")
                return
            siblings = [{"rfilename": name} for name in Hub.files[found[1]][commit]]
            known = {"id": found[1], "sha": commit, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
            self.answer(200, json.dumps(known).encode())
        elif (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path)) and found[1] in Hub.files:
            content = Hub.files[found[1]][found[2]].get(found[3])
            if content is None:
                self.answer(404, X_Error_Code="EntryNotFound")
                return
            if self.command == "GET":
                Hub.read.append(found[3])
            digest = hashlib.sha1(content).hexdigest()
            self.answer(200, content, ETag=f'"{digest}"', X_Repo_Commit=found[2])
        else:
            self.answer(404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/api/repos/create"):
            self.answer(200, json.dumps({"url": f"{os.environ['HF_ENDPOINT']}/me/new"}).encode())
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self.answer(200, json.dumps({"files": modes}).encode())
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    Hub.uploaded[line["value"]["path"]] = hashlib.sha256(content).hexdigest()
                    if line["value"]["path"].endswith("README.md"):
                        Hub.uploaded["the page"] = content.decode()
            done = {"commitUrl": f"{os.environ['HF_ENDPOINT']}/me/new/commit/{NEW}", "commitOid": NEW, "hookOutput": ""}
            self.answer(200, json.dumps(done).encode())
        else:
            self.answer(200, json.dumps({"errors": [], "warnings": []}).encode())


def files_of(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def main(home: Path, names: dict[str, str]) -> None:
    serve(Hub, home)
    os.environ |= {"HF_TOKEN": "hf_none", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    Hub.files = {REPO: {commit: files_of(home / commit) for commit in (OLD, NEW)}}  # folders that the test left
    for folder in (home / "published").glob("*/*"):
        files = files_of(folder)
        Hub.files[str(folder.relative_to(home / "published"))] = {OLD: files, NEW: files}

    from atomlab import LanguageModel, open_run
    from atomlab.interop import load, push_to_hub

    def first_weight(name: str, **options: str) -> list[object]:
        sae = load(name, **options)
        return [sae.origin and sae.origin.format, float(sae.W_dec.detach()[0, 0])]

    result: dict[str, object] = {"named": first_weight(f"{REPO}/layers/one")}
    result["read for one"] = sorted(Hub.read)
    result["archive"] = first_weight(f"hf://{REPO}/gemma-scope-2b-pt-res/layer_3")
    Hub.main = NEW
    result["moved"] = first_weight(f"{REPO}/layers/one")
    result["by commit"] = first_weight(f"{REPO}/layers/one", revision=OLD)
    result["by commit in the name"] = first_weight(f"{REPO}@{OLD}/layers/one")
    result["several"] = error_of(lambda: load(REPO))
    result["no SAE"] = error_of(lambda: load(f"{REPO}/notes"))
    result["no revision"] = error_of(lambda: load(f"{REPO}/layers/one", revision="v9"))
    result["no repository"] = error_of(lambda: load("me/other"))
    result["uploaded to"] = push_to_hub(home / OLD / "layers" / "one", "me/new", folder="a/b")
    result["uploaded"] = Hub.uploaded
    for title, name in names.items():
        layout, sae = LAYOUTS[title], load(name)
        assert sae.origin is not None
        wrong = max(float((a - b).abs().max()) for a, b in ((sae.encode(X), layout.codes), (sae(X), layout.x_hat)))
        result[title] = [sae.origin.format, sae.origin.model, sae.origin.site, wrong]
    model = LanguageModel(str(home / "model"), dtype="float32", device="cpu")
    result["opened at"] = str(open_run(names["Gemma Scope"], model=model).point)
    Hub.gone = True
    result["without a hub"] = first_weight(f"{REPO}/layers/one", revision=OLD)
    result["never seen"] = error_of(lambda: load("me/unseen"))
    sys.stdout.write(f"{json.dumps(result)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
