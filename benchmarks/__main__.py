"""``python -m benchmarks``: all questions in one run, as a table and as ``benchmarks/results.json``."""

from __future__ import annotations

import argparse
import importlib
import json
import warnings
from pathlib import Path

import torch

from benchmarks.measure import Row, machine, matmul_rate

QUESTIONS = ("step", "allocator", "inference", "stage1", "data", "startup", "compiled")
RESULTS = Path(__file__).with_name("results.json")


def table(found: list[Row]) -> str:
    """Return the rows as text."""
    lines, question = [], ""
    for row in found:
        if row.question != question:
            question = row.question
            lines += ["", question]
        limit = f"{row.limit_fraction:.2f}" if row.limit_fraction is not None else ""
        peak = f"{row.peak_mb:,.0f}" if row.peak_mb is not None else ""
        lines.append(
            f"  {row.variant:52}{row.baseline_s:10.4f}{row.seconds:10.4f}{row.ratio:7.2f}{limit:>10}{peak:>10}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the questions and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", help=f"some of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    if unknown := set(options.questions) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    rate = matmul_rate(options.device, dtype)
    header = {**machine(options.device), "matmul_gflops": round(rate / 1e9, 1), "repeats": options.repeats}
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print(f"{'':54}{'plain, s':>10}{'seconds':>10}{'ratio':>7}{'of limit':>10}{'peak, MB':>10}", flush=True)
    found: list[Row] = []
    for name in options.questions or QUESTIONS:
        rows = importlib.import_module(f"benchmarks.{name}").measure(options.device, options.repeats, rate)
        print(table(rows), flush=True)
        found += rows
    path = RESULTS if options.device == "cpu" else RESULTS.with_name("results_cuda.json")
    old = json.loads(path.read_text())["rows"] if options.questions and path.is_file() else []
    kept = [row for row in old if row["question"] not in {row.question for row in found}]
    rows = kept + [row._asdict() for row in found]
    path.write_text(json.dumps({"machine": header, "rows": rows}, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
