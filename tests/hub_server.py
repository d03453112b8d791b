"""What the hubs of tests have in common; each runs in a process of its own, since libraries read their address on import."""

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OLD, NEW = "a" * 40, "b" * 40


class Answers(BaseHTTPRequestHandler):
    """Answers requests, and says nothing of them."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        """Sends headers, whose names have _ for -, and the body, except to a question for the headers alone."""
        self.send_response(code)
        for name, value in (headers | {"Content_Length": str(len(body))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def serve(hub: type[Answers], home: Path) -> None:
    """Starts a hub that Hugging Face's libraries take for theirs, and goes to a folder that has no repository's name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    os.environ |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    os.chdir(home)


def error_of(attempt: Callable[[], object]) -> str:
    """Returns the error of an attempt as one text, or what it gave."""
    try:
        return f"no error but {attempt()}"
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
