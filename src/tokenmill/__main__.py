"""``python -m tokenmill`` is ``tokenmill``."""

from tokenmill.cli.main import main

if __name__ == "__main__":
    main()
