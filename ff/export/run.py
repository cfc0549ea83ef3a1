"""Classes of images by the network in this folder. Needs onnxruntime and numpy, nothing else.

    python run.py [--int8] [--early-exit] [IMAGES.npy]

IMAGES.npy: uint8 [N, channels, rows, columns]. Without it the eight test images of the bundle are answered, and the
exit status says whether the answers are the expected ones.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main() -> int:
    """Print a line for each image; 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", type=Path)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--early-exit", action="store_true")
    args = parser.parse_args()
    folder = Path(__file__).parent
    bundle = json.loads((folder / "bundle.json").read_text())
    name = ("early_exit" if args.early_exit else "full") + (".int8.onnx" if args.int8 else ".onnx")
    session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
    images = np.load(args.images or folder / "images.npy")
    size = 1 if args.early_exit else 512
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    answers = [int(answer) for batch in batches for answer in session.run(["answer"], {"image": batch})[0]]
    print("\n".join(bundle["labels"][answer] for answer in answers))
    expected = answers if args.images else bundle["examples"]["answers"][name]
    if answers != expected:
        print(f"{name}: expected {expected}, not {answers}", file=sys.stderr)
    return int(answers != expected)


if __name__ == "__main__":
    sys.exit(main())
