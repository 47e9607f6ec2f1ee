"""`make bench` writes figures/<profile>/bench.json: a row for each case, and the peak that shares are of."""

import argparse
import json
from datetime import UTC, datetime

import torch

from bench import latents, pixels, processes
from bench.rates import conv_peak, timed
from distill_lib.engine.files import atomic
from distill_lib.engine.origin import origin
from distill_lib.paths import figures_folder


def main() -> None:
    """Measure every case and write the rows."""
    parser = argparse.ArgumentParser(prog="bench", description="our loops and samplers against the plain way")
    parser.add_argument("--profile", default="quick", help="the folder below figures/ that the result is written to")
    folder = figures_folder(parser.parse_args().profile)
    peak, rows = conv_peak(), []
    for case in (*pixels.cases(), *latents.cases()):
        rows.append(row := timed(case, peak))
        print(
            f"{row['what']}: bf16 {row['bf16']:.0f}, fp32 {row['fp32']:.0f} images/s, plain {row['plain']:.0f}, "
            f"ratio {row['ratio']:.2f} by {row['chosen']}, {row['peak_share']:.0%} of peak",
            flush=True,
        )
    result = {"day": f"{datetime.now(UTC):%Y-%m-%d}", "device": origin()["device"], "threads": torch.get_num_threads()}
    result |= {"peak": peak, "rows": rows, "processes": (both := processes.timed())}
    print(f"two processes of a thread {both['two']:.1f}, one of two {both['one']:.1f} images/s: {both['ratio']:.2f}")
    with atomic(folder / "bench.json") as part:
        part.write_text(json.dumps(result, indent=1))
    best = " and ".join(f"{value / 1e9:.0f} in {name}" for name, value in peak.items())
    print(f"convolution peak, GFLOP/s: {best}; {result['device']}; written to {folder / 'bench.json'}")


if __name__ == "__main__":
    main()
