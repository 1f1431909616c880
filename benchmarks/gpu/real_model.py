"""Real weights in three forms: the same greedy answers, acceptance of the trained draft, and speed with and without it.

`greedy` asks three servers the same held-out prompts, `speed` two of them by prompt length, `reference` computes the answers again in
float32 on the CPU, with the log-probability gap wherever two of them part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu.client import Server
from services.fusion.decide.answer import answer_regex
from services.training.examples import Example, load, of_part

SHAPES = ("1k", "2k", "4k", "8k")
LONGEST = "full"
"""Asked for speed and acceptance alone: no training prompt was as long."""
HELD_OUT = 100
ANSWER_TOKENS = 88


def held_out(files: Sequence[Path], count: int, shapes: Sequence[str] = SHAPES) -> list[Example]:
    """Return `count` test prompts, as many of each shape, spread over the test years."""
    test = [one for file in files for one in of_part(load(file)[0], "test")]
    chosen = []
    for shape in shapes:
        of_shape = sorted((one for one in test if one.about.shape == shape), key=lambda one: (one.about.time, one.about.symbol))
        chosen += of_shape[:: max(1, len(of_shape) // (count // len(shapes)))][: count // len(shapes)]
    return chosen


def ask(server: Server, example: Example, *, logprobs: bool = False, regex: bool = False) -> dict[str, Any]:
    """Return text, ids, what the server says of the call, and its milliseconds."""
    sampling: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": ANSWER_TOKENS}
    if regex:
        sampling["regex"] = answer_regex(rationale=True)
    body: dict[str, Any] = {"input_ids": example.prompt_ids.tolist(), "sampling_params": sampling}
    if logprobs:
        body |= {"return_logprob": True, "top_logprobs_num": 2}
    data = json.dumps(body).encode()
    began = time.perf_counter()
    said = server.request("POST", "/generate", data)
    took_ms = (time.perf_counter() - began) * 1000
    meta = said["meta_info"]
    found = {"text": said["text"], "ids": said.get("output_ids"), "ms": took_ms, "accept": meta.get("spec_accept_length")}
    found |= {"tokens": meta["completion_tokens"], "cached": meta["cached_tokens"], "finish": meta["finish_reason"]["type"]}
    if logprobs:
        found["ids"] = [entry[1] for entry in meta["output_token_logprobs"]]
        found["gaps"] = [top[0][0] - top[1][0] for top in meta["output_top_logprobs"]]
    return found


def parted(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Return the first place where two answers differ, None where they are the same."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return None if len(one) == len(other) else min(len(one), len(other))


def greedy(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the three servers, one call at a time on each: a batch's size changes the last bits."""
    examples = held_out(arguments.examples, HELD_OUT)
    servers = {name: Server(getattr(arguments, name)) for name in ("llama", "minicpm", "eagle")}

    def every(name: str) -> list[dict[str, Any]]:
        return [ask(servers[name], one, logprobs=name != "eagle") for one in examples]

    with ThreadPoolExecutor(3) as pool:
        said = dict(zip(servers, pool.map(every, servers), strict=True))
    rows = []
    for number, example in enumerate(examples):
        llama, minicpm, eagle = (said[name][number] for name in servers)
        forms = parted(llama["ids"], minicpm["ids"])
        same = eagle["text"] == minicpm["text"] if eagle["ids"] is None else parted(eagle["ids"], minicpm["ids"]) is None
        at = None if same or eagle["ids"] is None else parted(eagle["ids"], minicpm["ids"])
        rows.append(
            {
                "id": example.about.id,
                "shape": example.about.shape,
                "prompt_tokens": int(example.prompt_ids.size),
                "llama_ids": llama["ids"],
                "texts": {name: said[name][number]["text"] for name in servers},
                "forms_part_at": forms,
                "gap_where_forms_part": None if forms is None or forms >= len(llama["gaps"]) else llama["gaps"][forms],
                "eagle_same": same,
                "gap_where_eagle_parts": None if at is None or at >= len(minicpm["gaps"]) else minicpm["gaps"][at],
                "accept": eagle["accept"],
                "median_gap": statistics.median(llama["gaps"]),
            }
        )
    return {"greedy": rows}


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure answers under the worker's grammar by prompt length, the prompt cached, one at a time and eight at once."""
    servers = {"plain": Server(arguments.minicpm), "eagle3": Server(arguments.eagle)}
    rows = []
    for shape in (*SHAPES, LONGEST):
        examples = held_out(arguments.examples, 24, (shape,))
        if not examples:
            continue
        for name, server in servers.items():
            for one in examples:
                ask(server, one, regex=True)
            alone = [ask(server, one, regex=True) for one in examples]
            with ThreadPoolExecutor(8) as pool:
                began = time.perf_counter()
                list(pool.map(lambda one, server=server: ask(server, one, regex=True), examples))
                together_s = time.perf_counter() - began
            rows.append(
                {
                    "server": name,
                    "shape": shape,
                    "prompt_tokens": round(statistics.mean(one.prompt_ids.size for one in examples)),
                    "answers": len(alone),
                    "tokens": statistics.mean(one["tokens"] for one in alone),
                    "ms": statistics.median(one["ms"] for one in alone),
                    "ms_a_token": statistics.median(one["ms"] / one["tokens"] for one in alone),
                    "eight_at_once_tokens_per_s": sum(one["tokens"] for one in alone) / together_s,
                    "accept": None if name == "plain" else statistics.mean(one["accept"] for one in alone),
                    "accept_by_action": _by_action(alone) if name == "eagle3" else None,
                    "cached_share": sum(one["cached"] for one in alone) / sum(one.prompt_ids.size for one in examples),
                }
            )
            print(rows[-1], flush=True)
    return {"speed": rows}


def _by_action(answers: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the mean acceptance, and the count, by the answer's first word."""
    by_action: dict[str, list[float]] = defaultdict(list)
    for one in answers:
        by_action[one["text"].partition(" ")[0]].append(one["accept"])
    return {action: [statistics.mean(values), len(values)] for action, values in by_action.items()}


def reference(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compute the answers of Llama's form again on the CPU in float32: each token has to be the likeliest after those before it.

    Rows that an earlier call computed stay, so that what one host had no time for another can finish.
    """
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    began = time.monotonic()
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    by_id = {(one.about.id, one.about.shape): one for one in held_out(arguments.examples, HELD_OUT)}
    rows = json.loads(arguments.results.read_text())["greedy"]
    for row in sorted((row for row in rows if "reference_parts_at" not in row), key=lambda row: int(row["prompt_tokens"])):
        if time.monotonic() - began > arguments.budget_s:
            break
        prompt = by_id[row["id"], row["shape"]].prompt_ids.tolist()
        ids = torch.tensor([prompt + row["llama_ids"]])
        with torch.no_grad():
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
            logprobs = model.lm_head(hidden[0, len(prompt) - 1 : -1]).log_softmax(-1)
        likeliest = logprobs.argmax(-1).tolist()
        at = parted(likeliest, row["llama_ids"])
        row["reference_parts_at"] = at
        row["reference_gap"] = None if at is None else float(logprobs[at].max() - logprobs[at, row["llama_ids"][at]])
    return {"greedy": rows}


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Return the counts that the page quotes."""
    rows = results.get("greedy", [])
    computed = [row for row in rows if "reference_parts_at" in row]
    return {
        "prompts": len(rows),
        "forms_same": sum(row["forms_part_at"] is None for row in rows),
        "gaps_where_forms_part": sorted(row["gap_where_forms_part"] for row in rows if row["gap_where_forms_part"] is not None),
        "eagle_same": sum(row["eagle_same"] for row in rows),
        "gaps_where_eagle_parts": sorted(row["gap_where_eagle_parts"] for row in rows if row["gap_where_eagle_parts"] is not None),
        "reference_computed": len(computed),
        "reference_same": sum(row["reference_parts_at"] is None for row in computed),
        "reference_gaps": sorted(row["reference_gap"] for row in computed if row["reference_gap"] is not None),
        "median_gap": statistics.median(row["median_gap"] for row in rows) if rows else None,
    }


def main() -> None:
    """Run one part, and add it to the results."""
    parts: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"greedy": greedy, "speed": speed, "reference": reference}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--examples", type=Path, nargs="+", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--llama")
    parser.add_argument("--minicpm")
    parser.add_argument("--eagle")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--budget-s", type=float, default=120.0)
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    results |= parts[arguments.part](arguments)
    results["summary"] = summary(results)
    arguments.results.write_text(json.dumps(results, indent=1))
    print(results["summary"], flush=True)


if __name__ == "__main__":
    main()
