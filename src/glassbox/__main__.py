"""`python -m glassbox`, and `torchrun -m glassbox`."""

from glassbox.cli import main

if __name__ == "__main__":
    main()
