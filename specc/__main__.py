"""python -m specc, and the command `specc`"""

import gc
import sys


def main() -> None:
    """Run the command line; what it needs is imported where an interrupt is told, as all of a command is."""
    gc.disable()  # to the end: the process is over before there is anything worth collecting
    try:
        from specc.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    finally:
        gc.freeze()  # an interpreter that ends looks for garbage all the same, a tenth of a build


if __name__ == "__main__":
    main()
