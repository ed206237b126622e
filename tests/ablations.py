"""The comparisons of docs/ablations.md: methods and settings side by side, on every so manieth frame of a dataset.

    python -m tests.ablations DAVIS --out ablations --every 4 --jobs 2
    python -m tests.ablations DAVIS --out ablations --every 4 --only memory videomatch

`DAVIS` holds `JPEGImages/480p/SEQ` and `Annotations/480p/SEQ`. The thinned dataset is made of links in the output
folder and run as `vostrack benchmark folder`, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vostrack.benchmark.datasets.table import open_dataset
from vostrack.benchmark.runner import Options, run_benchmark
from vostrack.benchmark.variants import parse_variants

GROUPS = {
    "methods": ["anchors", "mast-mem", "videomatch", "rpm-net"],
    "published": ["anchors:paper", "mast-mem:paper", "videomatch:paper", "rpm-net:paper"],
    "features": ["anchors,colour=0", "anchors,whitening=0", "anchors,whitening=1", "anchors,stages=1,2,3,4"],
    "memory": ["mast-mem,first=,recent=1", "mast-mem,first=0,recent=1,3", "mast-mem,spread=64", "mast-mem,soft=false"],
    "videomatch": [
        "videomatch,outlier_removal=false,background_update=false",
        "videomatch,background_update=false",
        "videomatch,foreground_update=true",
        "videomatch,finetune_steps=30",
    ],
    "refinement": ["anchors,refine=crf", "mast-mem,refine=crf", "videomatch,refine=crf", "rpm-net,refine=crf"],
    "adaptation": ["mast-mem,adapt=clip", "rpm-net,adapt=clip", "anchors,adapt=clip", "anchors,adapt=clip,refine=crf"],
}


def thin(root: Path, every: int, out: Path) -> Path:
    """Links to every so manieth frame and its mask."""
    for kind in ("JPEGImages/480p", "Annotations/480p"):
        for sequence in sorted((root / kind).iterdir()):
            folder = out / kind / sequence.name
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted(sequence.iterdir())[::every]:
                if not (folder / file.name).is_symlink():
                    (folder / file.name).symlink_to(file.resolve())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--sequences", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    dataset = open_dataset(
        "folder", thin(options.root, options.every, options.out / "data"), sequences=options.sequences
    )
    for group in options.only:
        print(f"\n| {group} | J | F | s/frame |\n|---|---|---|---|", flush=True)
        for variant in parse_variants(GROUPS[group]):
            found = run_benchmark(dataset, [variant], options.out / "results", Options(options.size, jobs=options.jobs))
            total = found["variants"][variant.name]["total"]
            seconds = found["timing"]["variants"][variant.name]["seconds_per_frame"]["model"]
            print(f"| `{variant.text}` | {total['J_mean']:.3f} | {total['F_mean']:.3f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
