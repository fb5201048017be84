"""python -m specc, and the command `specc`"""

import gc
import sys


def main() -> None:
    """Run the command line; what it needs is imported where an interrupt is told, as all of a command is."""
    try:
        from specc.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    finally:
        gc.freeze()  # the process ends: to look for garbage once more would be a tenth of a build


if __name__ == "__main__":
    main()
