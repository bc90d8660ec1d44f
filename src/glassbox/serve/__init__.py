"""HTTP in OpenAI's shapes, and a chat page: a model folder comes in, replies go out, streamed or whole.

`app.py` puts it together and runs it; `chat_completions.py` and `completions.py` are the two ways of asking;
`answers.py` goes from prompts to text, `worker.py` is the one thread that decodes for everybody; `protocol.py` holds
the requests' types, `guard.py` keys, limits and refusals; `scoring.py` alternatives of tokens; `chat.html` is the page.
"""
