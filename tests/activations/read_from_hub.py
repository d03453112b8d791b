"""Reads a dataset from a hub that runs here, moves its branch, and takes the hub away; prints what it saw as JSON.

The hub answers what huggingface_hub and datasets ask of one dataset, `me/mine`, of two commits.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

from tests.hub_server import NEW, OLD, Answers, error_of, serve

FACT = {"prompt": "The mother tongue of Ada is", "subject": "Ada"}
FILES = {
    commit: "".join(f"{json.dumps({'text': f'{word} {i}'} | FACT)}\n" for i in range(3)).encode()
    for commit, word in ((OLD, "old"), (NEW, "new"))
}


class Hub(Answers):
    main, gone = OLD, False

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if Hub.gone:
            self.close_connection = True  # without an answer
        elif found := re.fullmatch(r"/api/datasets/me/mine(?:/revision/(\w+))?", path):
            commit = Hub.main if found[1] in (None, "main") else found[1]
            known = {"id": "me/mine", "sha": commit, "siblings": [], "tags": [], "downloads": 0, "likes": 0}
            wrong = {"X_Error_Code": "RevisionNotFound"}
            self.answer(200, json.dumps(known).encode()) if commit in FILES else self.answer(404, **wrong)
        elif found := re.fullmatch(r"/api/datasets/me/mine/tree/(\w+)", path):
            size, name = len(FILES[found[1]]), hashlib.sha1(FILES[found[1]]).hexdigest()
            self.answer(200, json.dumps([{"type": "file", "path": "data.jsonl", "size": size, "oid": name}]).encode())
        elif found := re.fullmatch(r"/datasets/me/mine/resolve/(\w+)/(README.md|data.jsonl)", path):
            commit = Hub.main if found[1] == "main" else found[1]
            if commit not in FILES:
                self.answer(404, X_Error_Code="RevisionNotFound")
            else:
                content = FILES[commit] if found[2] == "data.jsonl" else b"# A card\n"
                self.answer(200, content, ETag=f'"{found[2]} {commit}"', X_Repo_Commit=commit)
        else:
            missing = (
                "EntryNotFound" if path.startswith(("/datasets/me/mine/", "/api/datasets/me/mine/")) else "RepoNotFound"
            )
            self.answer(404, X_Error_Code=missing)

    do_HEAD = do_GET


def main(home: str) -> None:
    serve(Hub, Path(home))

    from atomlab.activations.corpora.counterfact import CounterFact  # read the environment when they are imported
    from atomlab.activations.corpora.hub import HubText

    def seen(corpus: HubText) -> tuple[object, list[str]]:
        return corpus.fingerprint["hub"], [example.text for example in corpus.examples()]

    result: dict[str, object] = {}
    first, facts = HubText("me/mine"), CounterFact("me/mine")
    result["named"], result["facts named"] = first.fingerprint["hub"], facts.fingerprint["counterfact"]
    Hub.main = NEW
    result["read after the branch moved"] = [example.text for example in first.examples()]
    result["facts"] = [example.text for example in facts.examples()]
    result["streamed"], result["mapped"] = seen(HubText("me/mine")), seen(HubText("me/mine", streaming=False))
    result["by commit"] = seen(HubText("me/mine", revision=OLD))
    result["by branch"] = seen(HubText("me/mine", revision="main"))
    result["no name"] = error_of(lambda: HubText("me/other").fingerprint)
    result["no revision"] = error_of(lambda: HubText("me/mine", revision="v9").fingerprint)
    result["no split"] = error_of(lambda: list(HubText("me/mine", split="dev").examples()))
    Hub.gone = True
    result["seen before"] = error_of(lambda: HubText("me/mine", revision="main").fingerprint["hub"])
    result["commit without a hub"] = HubText("me/mine", revision=OLD).fingerprint["hub"]
    result["not to be read"] = error_of(lambda: list(HubText("me/mine", revision="c" * 40).examples()))
    result["another commit here"] = error_of(lambda: list(HubText("me/mine", revision=OLD, streaming=False).examples()))
    result["never seen"] = error_of(lambda: HubText("me/unseen").fingerprint)
    sys.stdout.write(f"{json.dumps(result)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
