"""Run the program as a module: ``python -m voxplain``, ``torchrun -m voxplain train …``."""

from voxplain.cli import main

if __name__ == "__main__":
    main()
