"""How the tests ask: a chat or completion request, and the parts of a streamed reply."""

import json
import time

QUESTION = [{"role": "user", "content": "What is 47 + 85?"}]


def chat(client, **fields):
    return client.post("/v1/chat/completions", json={"messages": QUESTION, **fields})


def complete(client, **fields):
    return client.post("/v1/completions", json={"prompt": "Tom has", **fields})


def chunks(response):
    """The events of a streamed reply, after checking its frame."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def said(events, index=0):
    """The text of one choice in a streamed chat."""
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def refusal(response, status):
    """The error of a refused request, after checking its shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    return error


def until(condition, seconds: float = 90) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
