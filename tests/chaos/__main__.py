"""`make chaos`: kill runs at random moments, and hold what comes out of them against an undisturbed run, bit by bit.

Everything happens in a copy of the checkout, so that `publish` can be killed too. Each kill takes the head alone, the
whole tree, or is a SIGTERM; it comes after a random time, or when a file is just being written. In between, a byte of a
checkpoint is flipped, files may not grow (as on a full disk), and a second run is started beside the first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chaos.campaign import Campaign

from distill_lib.paths import COMMITTED, ROOT, figures_folder


def main() -> None:
    """Command line: two campaigns side by side, and the record of both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lane", type=Path, default=None, help="one campaign alone, which writes its record here")
    args = parser.parse_args()
    if args.lane:
        with tempfile.TemporaryDirectory(prefix="distill-chaos-") as folder:
            args.lane.write_text(json.dumps(Campaign(Path(folder), seed=args.seed).run(args.kills)))
        return
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="distill-chaos-") as folder:
        records = [Path(folder) / f"{lane}.json" for lane in range(2)]
        halves = [(args.kills + 1) // 2, args.kills // 2]
        lanes = [
            [sys.executable, "-m", "chaos", f"--kills={n}", f"--seed={args.seed + k}", f"--lane={p}"]
            for k, (n, p) in enumerate(zip(halves, records, strict=True))
        ]
        running = [subprocess.Popen(lane, cwd=ROOT) for lane in lanes]
        if any([process.wait() for process in running]):
            raise SystemExit("a campaign did not end; its message stands above")
        campaigns = [json.loads(path.read_text()) for path in records]
    _report(campaigns, round(time.monotonic() - start))


def _report(campaigns: list[dict[str, Any]], seconds: int) -> None:
    record: dict[str, Any] = {"kills": sum(campaign["kills"] for campaign in campaigns)}
    record |= {key: sum(len(campaign[key]) for campaign in campaigns) for key in ("lost", "different", "complaints")}
    record |= {"seconds": seconds, "notebooks": campaigns[0]["notebooks"]}
    record["counts"] = dict(sorted(sum((Counter(campaign["counts"]) for campaign in campaigns), Counter()).items()))
    path = figures_folder(COMMITTED) / "chaos.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    for campaign in campaigns:
        print(*campaign["lost"], *campaign["different"], *campaign["complaints"], sep="\n")
    raise SystemExit(bool(record["lost"] or record["different"] or record["complaints"]))


if __name__ == "__main__":
    main()
