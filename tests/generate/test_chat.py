"""The terminal chat: streamed text, kept and forgotten turns, the same conversation twice."""

import pytest

from glassbox.errors import RequestError
from glassbox.generate.chat import ChatSession
from glassbox.generate.engine import Engine, Request
from glassbox.generate.replies import chat_prompt, stop_ids
from glassbox.tokens.tokenizer import decode
from tests.tiny import tiny_loaded


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded()


def session(loaded, temperature=0.0, max_new_tokens=12, seed=1):
    return ChatSession(loaded, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)


def test_the_pieces_join_to_the_engines_reply(loaded):
    chat = session(loaded)
    text = "".join(chat.reply("What is 3 + 4?"))
    request = Request(chat_prompt(loaded, "What is 3 + 4?"), 12, temperature=0, stop_ids=stop_ids(loaded))
    [done] = Engine(loaded.model, slots=1, capacity=loaded.context).generate([request])
    assert text == decode(loaded.tokenizer, done.ids[:-1] if done.finish_reason == "stop" else done.ids)
    assert chat.turns == [("What is 3 + 4?", text)]


def test_the_same_conversation_twice_and_with_another_seed(loaded):
    def talk(seed):
        chat = session(loaded, temperature=1.0, seed=seed)
        return ["".join(chat.reply(question)) for question in ("What is 1 + 1?", "What is 1 + 1?")]

    assert talk(1) == talk(1) != talk(2)


def test_the_oldest_turns_are_forgotten_whole(loaded):
    chat = session(loaded)
    for number in range(20):
        "".join(chat.reply(f"What is {number} + 4?"))
        prompt = chat._prompt("What is 1 + 1?")
        assert len(prompt) + 12 <= loaded.context
    questions = [question for question, _ in chat.turns]
    assert 0 < len(questions) < 20
    assert questions == [f"What is {number} + 4?" for number in range(20 - len(questions), 20)]


def test_a_question_too_long_for_the_context(loaded):
    chat = session(loaded)
    with pytest.raises(RequestError, match="no room for a reply"):
        next(chat.reply("7 " * loaded.context))
    assert "".join(chat.reply("What is 1 + 1?")) == "".join(session(loaded).reply("What is 1 + 1?"))


def test_a_reply_broken_off_is_kept_as_far_as_it_came_and_frees_the_engine(loaded):
    chat = session(loaded, temperature=1.5)
    pieces = chat.reply("What is 3 + 4?")
    first = next(pieces)
    pieces.close()
    assert chat.turns == [("What is 3 + 4?", first)]
    assert not chat._engine.busy
