"""Make gemma3n-nano: ``python -m demo``."""

import argparse
import time
from pathlib import Path

from demo.making import Plan, make

ROOT = Path(__file__).parent.parent


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Train the bundled demo model.")
    parser.add_argument("--workshop", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument("--output", type=Path, default=ROOT / "models" / "gemma3n-nano")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of every stage; 0.01 is a try")
    arguments = parser.parse_args(argv)
    plan = Plan(arguments.workshop, arguments.seed, arguments.scale)
    plan.workshop.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    make(plan, arguments.output)
    print(f"made {arguments.output} in {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
