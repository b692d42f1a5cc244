"""The benchmark of environments: its jobs are valid, its rows can be played, its table is complete."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.environments import DECOYS, TASKS, Case, documents, market_rows, price_of, results
from bench.kl import Outcome
from rft_api.dumper import dump
from rft_api.status import EvaluationResult
from rft_api.validation import check, parse
from rft_cli.main import app
from rft_graders.hosted import tools_of
from rft_run.steps import StepRecord

CALL = '<tool_call>{"name": "price", "arguments": {"item": "apple", "market": 1}}</tool_call>'


def case(task: str, seed: int = 0) -> Case:
    return Case(task, seed, 20, "org/model")


@pytest.mark.parametrize("task", TASKS)
def test_each_job_is_valid_and_samples_several_turns(task: str) -> None:
    body = documents(case(task))[0]
    assert check(body).problems == ()
    job = parse(body)
    assert job.spec.environment is not None
    assert job.spec.environment.max_turns == 3
    assert job.spec.stop is not None
    assert job.spec.stop.max_steps == 20


def test_no_row_has_the_price_that_it_asks_for_and_no_two_rows_ask_the_same() -> None:
    rows = market_rows()
    assert len({(row["item"], row["market"]) for row in rows}) == len(rows)
    for row in rows:
        assert [message["role"] for message in row["messages"]] == [*["user", "assistant"] * 2, "user"]
        asked = [call["tool_calls"][0]["function"]["arguments"] for call in row["messages"][1::2]]
        assert {"item": row["item"], "market": row["market"]} not in asked


@pytest.mark.parametrize("seed", range(len(DECOYS)))
def test_the_seed_decides_the_order_of_the_tools(seed: int) -> None:
    namespace: dict[str, type] = {}
    (code,) = [
        d["data"]["environment.py"]
        for d in documents(case("market", seed))
        if "environment.py" in d.get("data", {})
    ]
    exec(code, namespace)
    names = [tool["function"]["name"] for tool in tools_of(namespace["Environment"])]
    assert names == sorted(["price", DECOYS[seed]])
    assert names.index("price") == seed


def test_the_market_rewards_who_asks_and_who_reports(tmp_path: Path) -> None:
    file = tmp_path / "market.yaml"
    file.write_text("---\n".join(map(dump, documents(case("market")))))

    def reward(*said: str) -> str:
        texts = [argument for text in said for argument in ("--say", text)]
        result = CliRunner().invoke(app, ["env", "check", str(file), "--rows", "1", *texts])
        assert result.exit_code == 0, result.output
        return result.output.split("row 1: reward ")[1].split(",")[0]

    right = str(price_of("apple", 1))
    assert reward(CALL, f"It is {right}.") == "1"
    assert reward(CALL, "It is 5.") == "0.3"
    assert reward(right) == "0"


def test_the_table_has_a_line_for_each_run_with_its_numbers() -> None:
    reward = {"base": 0.3, "tuned": 0.8, "difference": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    evaluation = EvaluationResult.model_validate({"rows": 46, "step": 8, "reward": reward})
    steps = [
        StepRecord(step=n, turns=n, tool_calls=1, tool_errors=8 - n, step_seconds=30.0) for n in range(1, 9)
    ]
    line = list(results({case("market"): Outcome(evaluation, steps)}))[2]
    assert line == (
        "| market | 0 | 46 | 0.300 | 0.800 | +0.500, +0.400 to +0.600 | 1.50 to 7.50 | 1.00 to 1.00 |"
        " 6.50 to 0.50 | - | 8 | 4.0 |"
    )
