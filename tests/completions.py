"""A scripted OpenAI-compatible endpoint on a free port, for tests of who asks one."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(answer: Callable[[dict], str | tuple]) -> Iterator[tuple[str, list[dict]]]:
    """Its address and the bodies it was sent, with path and key; `answer` gives a text, or (status, content[, headers])
    for a body."""
    bodies: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append({**body, "path": self.path, "key": self.headers.get("authorization")})
            said = answer(body)
            status, content, *headers = (200, completion(said)) if isinstance(said, str) else said
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            for name, value in dict(*headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/", bodies
    finally:
        server.shutdown()
        server.server_close()


def question(body: dict) -> str:
    return body["messages"][0]["content"]


def completion(text: str, reason: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": reason}]}).encode()
