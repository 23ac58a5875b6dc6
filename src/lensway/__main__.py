"""`python -m lensway`: the same program as `lensway`."""

from lensway.cli.main import main

if __name__ == "__main__":
    main()
