"""Serve this interpreter's documentation: a script that prints its port and serves until its input closes.

A process of its own, because documenting a module imports it, and importing the whole library has side effects. It is
started isolated (-I -S), so that only the standard library is on the path, and with an empty environment, so that no
page shows the user's variables. Standard library only.
"""

import os
import pydoc
import re
import sys

ADDRESS = re.compile(r"(?: |&nbsp;)(?:at(?: |&nbsp;)0x|handle(?: |&nbsp;))[0-9A-Fa-f]{6,16}\b")
"""Memory addresses in shown values: the one thing on a page that changes from run to run."""


def main() -> None:
    port_out = os.fdopen(os.dup(1), "w")
    # What modules print on import goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    locate, handler = pydoc.locate, pydoc._url_handler  # type: ignore[attr-defined]
    # The server imports a module anew for each page; half the library does not survive being imported twice.
    pydoc.locate = lambda path, forceload=False: locate(path, False)

    def page(url: str, content_type: str = "text/html") -> str:
        # A lone surrogate in a docstring (module stringprep, say) would make the server drop the connection.
        text = handler(url, content_type).encode("utf-8", "replace").decode("utf-8")
        return ADDRESS.sub("", text)

    thread = pydoc._start_server(page, "127.0.0.1", 0)  # type: ignore[attr-defined]
    port_out.write(f"{thread.port}\n")
    port_out.flush()
    sys.stdin.read()
    # Not sys.exit: a module may have left threads or exit hooks that hang.
    os._exit(0)


if __name__ == "__main__":
    main()
