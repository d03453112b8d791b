"""`python -m atomlab` is `atomlab`."""

from atomlab.commands.main import main

if __name__ == "__main__":
    main()
