"""`python -m deploy.check.k8s FOLDER...`: checks your own overlays like the shipped ones; the exit status is 1 on a problem."""

from __future__ import annotations

import argparse
import sys

from deploy.check.k8s import problems
from deploy.check.k8s.rendered import RenderError, render
from deploy.check.tools import MissingToolError


def main(argv: list[str] | None = None) -> int:
    """Check the folders and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.check.k8s", description="Check kustomize overlays that build on the shipped ones."
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a folder with a kustomization.yaml, such as k8s/overlays/scale")
    wrong = 0
    for folder in parser.parse_args(argv).folders:
        try:
            found = problems(render(folder))
        except (RenderError, MissingToolError) as error:
            found = [str(error)]
        sys.stdout.write(f"{folder}: {f'{len(found)} wrong' if found else 'ok'}\n" + "".join(f"  {problem}\n" for problem in found))
        wrong += len(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
