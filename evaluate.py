"""Measures units with controls: `python evaluate.py run=outputs/...`, or a study: `experiment=...`; options in conf/."""

from atomlab.commands.evaluate import evaluate, main

__all__ = ["evaluate"]

if __name__ == "__main__":
    main()
