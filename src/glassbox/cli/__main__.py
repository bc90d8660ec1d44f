"""`python -m glassbox.cli`."""

from glassbox.cli import main

if __name__ == "__main__":
    main()
